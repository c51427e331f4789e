// addp knn: k nearest neighbours on a trained system's features and, for comparison, on raw pixels.
#pragma once
#include "examples/options.h"

namespace addp {

int cmd_knn(const KnnOptions& options);

}  // namespace addp
