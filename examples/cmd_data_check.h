// addp data check: names every unreadable or odd file before hours are spent.
#pragma once
#include "examples/options.h"

namespace addp {

int cmd_data_check(const DataOptions& options);

}  // namespace addp
