// addp probe: a linear classifier on frozen features, against the same classifier on raw pixels.
#pragma once
#include "examples/options.h"

namespace addp {

int cmd_probe(const ProbeOptions& options);

}  // namespace addp
