// addp evaluate: how good a run's images are, next to the data set's test split.
#pragma once
#include "examples/options.h"

namespace addp {

// Prints every figure with N, the feature network and what other real images would get; keeps them in each run's
// results.json and evaluate.json.
int cmd_evaluate(const EvaluateOptions& options);

}  // namespace addp
