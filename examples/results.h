// results.json of a run folder: figures that commands other than training find out (probe accuracy, sampling time),
// kept for the report.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace addp {

using Figures = std::vector<std::pair<std::string, std::string>>;  // name and value, as shown

// Replaces the figures of one command in RUN/results.json, atomically.
void save_figures(const std::string& run, const std::string& command, const Figures& figures);

// Every command's figures; none when there is no results.json. Throws Error(data) when the file is malformed.
std::vector<std::pair<std::string, Figures>> read_figures(const std::string& run);

}  // namespace addp
