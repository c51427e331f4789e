// Pictures for people: grids, originals above reconstructions, and the strip that shows the alternation.
#pragma once
#include <string>
#include <vector>

#include "addp/sampler.h"
#include "tensor/tensor.h"

namespace addp {

// PNG bytes of a grid of images [N, 3, H, W] in [0, 1].
std::string grid_png(const Tensor& images, int64_t columns);

// Rows of `columns` originals, each followed by the row of their reconstructions. Both [N, 3, H, W].
std::string pairs_png(const Tensor& originals, const Tensor& reconstructions, int64_t columns);

// Collects what the sampler does, for the first `rows` images: per step the mask of tokens (white = still unreliable)
// and the pixels decoded from the present tokens.
class AlternationStrip {
 public:
  explicit AlternationStrip(int64_t rows) : rows_(rows) {}
  void add(const SamplerState& state);               // a StepCallback
  std::string png(const Tensor& final_image) const;  // steps from left to right; two lines an image: mask, pixels

 private:
  int64_t rows_;
  std::vector<Tensor> masks_, images_;  // [rows, 3, H, W]
};

}  // namespace addp
