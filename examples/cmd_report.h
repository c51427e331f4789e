// addp report FOLDER: report.html over a run folder, or over the runs inside a folder.
#pragma once
#include <string>

namespace addp {

int cmd_report(const std::string& folder);

// FOLDER/report.html: for the run in FOLDER, if it is one, and for each run inside it: figures, sample pictures,
// curves, configuration.
void write_report(const std::string& folder);

}  // namespace addp
