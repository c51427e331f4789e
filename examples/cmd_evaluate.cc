#include "examples/cmd_evaluate.h"

#include <cstdio>
#include <filesystem>

#include "examples/evaluate.h"
#include "examples/results.h"

namespace addp {
namespace {

void print(const std::string& what, const Evaluation& evaluation) {
  std::printf("%s (%s), N = %lld, against as many test images of %s, feature network: %s\n", what.c_str(),
              evaluation.subject.c_str(), static_cast<long long>(evaluation.n), evaluation.data.c_str(),
              evaluation.network.c_str());
  const std::string under = concat_text("N = ", evaluation.n, ", ", evaluation.network);
  for (const auto& [name, value] : figures_of(evaluation))
    std::printf("  %-23s %s  [%s]\n", (name + ":").c_str(), value.c_str(), under.c_str());
}

// The run's system with another number of sampling steps.
Evaluation with_steps(Evaluator& evaluator, const std::string& folder, const EvaluateOptions& options) {
  RunConfig run = read_run_config(folder);
  check_as(ErrorKind::usage, run.stage == "addp" || run.stage == "predictor", "--steps: ", folder,
           " is a run of stage ", run.stage, ", which has no sampling steps; expected addp or predictor");
  run.config.sampler.steps = options.steps;
  return evaluator.system(*open_system(folder, run, network_options(options.common)));
}

}  // namespace

int cmd_evaluate(const EvaluateOptions& options) {
  apply(options.common);
  check_as(ErrorKind::usage, options.runs.empty() != options.images.empty(),
           "evaluate: --run RUN or --images FOLDER is missing: what is to be judged");
  if (!options.out.empty()) {
    check_as(ErrorKind::usage, options.runs.size() == 1, "evaluate: --out takes the figures of one --run");
    std::filesystem::create_directories(options.out);
  }
  Evaluator evaluator(options);
  if (!options.images.empty()) print(options.images, evaluator.images(options.images));
  for (const std::string& run : options.runs) {
    const Evaluation evaluation = options.steps > 0 ? with_steps(evaluator, run, options) : evaluator.run(run);
    save_evaluation(options.out.empty() ? run : options.out, evaluation);
    print(run, evaluation);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace addp
