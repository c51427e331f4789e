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

// FOLDER/NAME.json, NAME.md and the report HTML, atomically. add_pictures: puts sections behind the tables.
void write_tables(const std::string& folder, const std::string& name, const std::vector<Table>& tables,
                  const std::string& html, const std::function<void(Report&)>& add_pictures);
void add_comparison_pictures(Report& report, const Comparison& comparison);

// The number at the beginning of a figure that a command left in RUN/results.json; `name` is the figure's, or how it
// ends after "...". Empty when there is none.
std::vector<double> figure_of_run(const std::string& run, const std::string& command, const std::string& name);

// FID and the rest of a folder's evaluate.json, and how fast images were drawn.
void append_quality_columns(Table& table);
void read_quality(const std::string& folder, Row& row);

// "357 steps of vqgan (learning rate x2)"; the rate only after a sweep.
std::string steps_text(const Schedule& schedule, const std::string& system, const std::string& stage);

// Machine, data, budget, seeds: what a figure was found with.
std::vector<std::string> common_notes(const Comparison& comparison);

// Runs what is left of a comparison in options.run, whose tables follow every job; returns the exit code. arguments:
// the command line, for the command that goes on after a stop.
using MakeJobs = std::function<std::vector<Job>(const Comparison&, const Schedule&)>;
using WriteTables = std::function<void(const Comparison&, const Schedule&, const JobRunner&)>;
int run_comparison(const CompareOptions& options, const std::vector<std::string>& arguments, const MakeJobs& make_jobs,
                   const WriteTables& write);

}  // namespace addp
