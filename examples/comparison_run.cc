// From the options of `addp compare` or `addp ablate` to finished tables.
#include <cstdio>
#include <optional>

#include "data/dataset.h"
#include "examples/child.h"
#include "examples/comparison_table.h"
#include "examples/feature_network.h"
#include "examples/program.h"
#include "examples/run_config.h"

namespace addp {
namespace {

void print_parameters(const Comparison& comparison) {
  std::fprintf(stderr, "Parameters, in millions:\n");
  for (const SystemKind& system : comparison.systems) {
    std::string text;
    for (const std::string& stage : system.stages) {
      char number[32];
      std::snprintf(number, sizeof number, "%.2f",
                    static_cast<double>(network_parameters(comparison.config, stage)) / 1e6);
      text += concat_text(text.empty() ? "" : " + ", stage, " ", number);
    }
    std::fprintf(stderr, "  %-16s %s\n", system.title.c_str(), text.c_str());
  }
}

// What every job would stumble over: named at once, before there is a folder.
void check_inputs(const Comparison& comparison) {
  for (const Split split : {Split::train, Split::test})
    open_dataset(comparison.options.data.data, split, comparison.config.image_size);
  if (!comparison.options.features.empty())
    open_feature_network(comparison.options.features, network_options(comparison.options.common));
}

// By the plan, or by the budget, for which steps are timed and learning rates tried. Nothing when it was stopped.
std::optional<Schedule> make_schedule(const Comparison& comparison, JobRunner& runner) {
  if (!comparison.options.plan.empty()) return read_plan(comparison.options.plan, comparison);
  std::map<std::string, double> seconds;
  if (comparison.in_seconds) {
    if (!runner.run(calibration_jobs(comparison), 1)) return std::nullopt;
    check(runner.failures().empty(), "without the time of a step there is no budget: ",
          runner.failures().empty() ? "" : runner.failures().front());
    seconds = measured_step_seconds(comparison);
  }
  Schedule schedule = share_out(comparison, seconds);
  if (comparison.options.sweep) {
    if (!runner.run(sweep_jobs(comparison, schedule), comparison.options.jobs)) return std::nullopt;
    schedule.rate_factors = best_rate_factors(comparison);
  }
  return schedule;
}

// All that is left; false when it was stopped.
bool run_all(const Comparison& comparison, JobRunner& runner, const MakeJobs& make_jobs, const WriteTables& write) {
  const std::optional<Schedule> made = make_schedule(comparison, runner);
  if (!made) return false;
  const Schedule& schedule = *made;
  add_to_plan(comparison.options.run + "/plan.json", schedule);
  const auto write_now = [&] { write(comparison, schedule, runner); };
  const bool finished = runner.run(make_jobs(comparison, schedule), comparison.options.jobs, write_now);
  write_now();
  return finished;
}

}  // namespace

int run_comparison(const CompareOptions& options, const std::vector<std::string>& arguments, const MakeJobs& make_jobs,
                   const WriteTables& write) {
  apply(options.common);
  const Comparison comparison(options);
  if (!options.plan.empty()) read_plan(options.plan, comparison);  // refuses one that does not fit
  else if (!comparison.in_seconds) share_out(comparison, {});      // refuses a small budget
  check_inputs(comparison);
  JobRunner runner(options.run, options.common, options.resume);
  install_forwarding_handlers();
  print_parameters(comparison);
  if (!run_all(comparison, runner, make_jobs, write)) {
    std::fprintf(stderr, "\nStopped. To go on:\n  %s\n", resume_command(arguments).c_str());
    return 128 + forwarded_stop();
  }
  if (!runner.failures().empty()) {
    std::fprintf(stderr, "error: %zu jobs failed, the first: %s\n", runner.failures().size(),
                 runner.failures().front().c_str());
  }
  return runner.exit_code();
}

}  // namespace addp
