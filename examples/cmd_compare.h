// addp compare: all systems, one data set, one budget, one table.
#pragma once
#include "examples/options.h"

namespace addp {

// Trains and judges what is not done yet; FOLDER/compare.json, compare.md and report.html follow every job.
// arguments: the command line, for the command that goes on after a stop.
int cmd_compare(const CompareOptions& options, const std::vector<std::string>& arguments);

}  // namespace addp
