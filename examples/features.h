// What the images of a data set are to a trained system, for classifiers that learn on frozen features.
#pragma once
#include "data/dataset.h"
#include "examples/systems.h"

namespace addp {

inline constexpr int64_t kFeatureCells = 4;  // a side of the coarse grid, where that divides the token grid

// Of the first `count` images, without augmentation; on the device of `options`.
struct FrozenFeatures {
  Tensor pixels;  // [N, 3 H W]
  Tensor grid;    // [N, cells^2 D], tokens averaged in cells x cells parts of the image
  Tensor labels;  // [N] i64 on the CPU
};
FrozenFeatures frozen_features(const System& system, int64_t cells, const Dataset& data, int64_t count,
                               const char* name, Options options);

// The mean over all tokens, from the means of the cells. -> [N, D]
Tensor mean_of_cells(const Tensor& grid, int64_t cells);

}  // namespace addp
