// Dense tasks (Sec. 3.4) on the grid of a backbone's patch tokens: a class for each pixel, and boxes around objects.
#pragma once
#include <memory>
#include <string>

#include "addp/backbone.h"
#include "nn/fcos.h"
#include "nn/segmentation_head.h"

namespace addp {

// Patch tokens [B, L, D], normalised, as a map [B, D, grid, grid].
Var token_map(const Backbone& backbone, const LayerNorm& norm, const Var& image, const Mode& mode);

struct Segmenter {
  // classes: with the background, which is number 0.
  Segmenter(std::unique_ptr<Backbone> backbone, int64_t classes, int64_t width, const Rng& rng, Options options);

  Var operator()(const Var& image, const Mode& mode = {}) const;  // [B, 3, H, W] in [0, 1] -> logits [B, classes, H, W]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    backbone->visit(prefix, f);
    norm.visit(prefix + "fc_norm.", f);
    head.visit(prefix + "head.", f);
  }

  std::unique_ptr<Backbone> backbone;
  LayerNorm norm;
  SegmentationHead head;
};

struct Detector {
  Detector(std::unique_ptr<Backbone> backbone, int64_t classes, int64_t width, const Rng& rng, Options options);

  FcosOutput operator()(const Var& image, const Mode& mode = {}) const;  // [B, 3, H, W] in [0, 1]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    backbone->visit(prefix, f);
    norm.visit(prefix + "fc_norm.", f);
    head.visit(prefix + "head.", f);
  }

  std::unique_ptr<Backbone> backbone;
  LayerNorm norm;
  FcosHead head;
};

}  // namespace addp
