// Augmentation of whole batches, after which a label is a distribution: mixup (Zhang et al. 2018) and CutMix (Yun et
// al. 2019), combined as timm's Mixup does it for a batch: image i meets image B-1-i, one draw of the share for all.
#pragma once
#include "data/loader.h"

namespace addp {

struct MixOptions {
  double mixup = 0, cutmix = 0;   // alpha of Beta(alpha, alpha), the share's distribution; 0: never
  double switch_to_cutmix = 0.5;  // how often CutMix where both are on
};

struct MixedBatch {
  Tensor images;   // [B, 3, H, W] f32
  Tensor targets;  // [B, classes] f32, rows sum to 1
};

MixedBatch mix(const Batch& batch, int64_t classes, const MixOptions& options, Rng& rng);

// A draw from Beta(a, b), a, b > 0.
double draw_beta(double a, double b, Rng& rng);

}  // namespace addp
