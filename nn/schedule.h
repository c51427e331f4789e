// Learning rates over time and over layers.
#pragma once
#include <cstdint>
#include <string>

namespace addp {

// Linear warm-up from 0 to `base`, then half a cosine down to `min` (Loshchilov & Hutter 2017, without restarts).
// warmup, total and position are in one unit, steps or (fractional) epochs. After `total` the rate stays at `min`.
struct CosineSchedule {
  double base = 1e-3, min = 0;
  double warmup = 0, total = 1;

  double at(double position) const;
};

// Depth of a ViT parameter for layer-wise decay (Clark et al. 2020; the rule of MAE's fine-tuning): class token,
// positions and patch embedding 0, blocks.i i + 1, everything after the blocks depth + 1.
int64_t layer_of_parameter(const std::string& name, int64_t depth);
// decay^(depth + 1 - layer): 1 for the head, smallest for the patch embedding.
double layer_scale(const std::string& name, int64_t depth, double decay);

}  // namespace addp
