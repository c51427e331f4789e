#include "examples/cmd_compare.h"

#include "examples/comparison_table.h"

namespace addp {

int cmd_compare(const CompareOptions& options, const std::vector<std::string>& arguments) {
  const auto write = [](const Comparison& comparison, const Schedule& schedule, const JobRunner& runner) {
    write_tables(comparison.options.run, "compare", {comparison_table(comparison, schedule, runner)}, "report.html",
                 [&](Report& report) { add_comparison_pictures(report, comparison); });
  };
  return run_comparison(options, arguments, comparison_jobs, write);
}

}  // namespace addp
