#include "examples/cmd_evaluate.h"

#include <cstdio>

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

}  // namespace

int cmd_evaluate(const EvaluateOptions& options) {
  apply(options.common);
  check_as(ErrorKind::usage, options.runs.empty() != options.images.empty(),
           "evaluate: --run RUN or --images FOLDER is missing: what is to be judged");
  Evaluator evaluator(options);
  if (!options.images.empty()) print(options.images, evaluator.images(options.images));
  for (const std::string& run : options.runs) {
    const Evaluation evaluation = evaluator.run(run);
    save_evaluation(run, evaluation);
    print(run, evaluation);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace addp
