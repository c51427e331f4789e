// What the jobs of a comparison found out, read from their run folders: the table, and the report with the systems'
// samples side by side.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "examples/comparison.h"
#include "examples/report.h"
#include "examples/summary.h"

namespace addp {

// Whatever is there already; a comparison that was stopped has gaps.
Table comparison_table(const Comparison& comparison, const Schedule& schedule, const JobRunner& runner);

// FOLDER/NAME.json, NAME.md and report.html, atomically. add_pictures: puts sections behind the tables.
void write_tables(const std::string& folder, const std::string& name, const std::string& title,
                  const std::vector<Table>& tables, const std::function<void(Report&)>& add_pictures);
void add_comparison_pictures(Report& report, const Comparison& comparison);

// The number at the beginning of a figure that a command left in RUN/results.json; `name` is the figure's, or how it
// ends after "...". Empty when there is none.
std::vector<double> figure_of_run(const std::string& run, const std::string& command, const std::string& name);

// Machine, data, budget, seeds: what a figure was found with.
std::vector<std::string> common_notes(const Comparison& comparison);

}  // namespace addp
