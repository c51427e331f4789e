#include "examples/features.h"

#include <algorithm>

#include "autograd/ops.h"
#include "examples/batches.h"
#include "examples/progress.h"

namespace addp {

FrozenFeatures frozen_features(const System& system, int64_t cells, const Dataset& data, int64_t count,
                               const char* name, Options options) {
  NoGrad no_grad;
  std::vector<Var> pixels, grid, labels;
  const int64_t batch = 100;
  Progress progress(name, 0, count);
  for (int64_t begin = 0; begin < count; begin += batch) {
    const Batch part = read_batch(data, begin, std::min(begin + batch, count), system.run().config.image_size);
    const Tensor images = to(part.images, options);
    grid.emplace_back(mean_over_cells(system.tokens(images), cells));
    pixels.emplace_back(images.reshape({images.dim(0), -1}));
    labels.emplace_back(part.labels);
    progress.update(std::min(begin + batch, count), {}, part.images.dim(0));
  }
  std::vector<int64_t> all;
  for (const Var& part : labels) {
    const std::vector<int64_t> some = to_vector<int64_t>(part.value());
    all.insert(all.end(), some.begin(), some.end());
  }
  const int64_t n = static_cast<int64_t>(all.size());
  return {concat(pixels, 0).value(), concat(grid, 0).value(), from_vector(all, {n})};
}

Tensor mean_of_cells(const Tensor& grid, int64_t cells) {
  return mean_over_tokens(grid.reshape({grid.dim(0), cells * cells, -1}));
}

}  // namespace addp
