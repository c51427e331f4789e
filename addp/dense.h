// Dense tasks (Sec. 3.4) on the grid of a backbone's patch tokens: a class for each pixel, and boxes around objects.
#pragma once
#include "addp/backbone.h"
#include "nn/fcos.h"
#include "nn/segmentation_head.h"

namespace addp {

struct Segmenter : OnBackbone<SegmentationHead> {
  // classes: with the background, which is number 0.
  Segmenter(std::unique_ptr<Backbone> backbone, int64_t classes, int64_t width, const Rng& rng, Options options);

  Var operator()(const Var& image, const Mode& mode = {}) const;  // [B, 3, H, W] in [0, 1] -> logits [B, classes, H, W]
};

struct Detector : OnBackbone<FcosHead> {
  Detector(std::unique_ptr<Backbone> backbone, int64_t classes, int64_t width, const Rng& rng, Options options);

  FcosOutput operator()(const Var& image, const Mode& mode = {}) const;  // [B, 3, H, W] in [0, 1]
};

}  // namespace addp
