// Fine-tuning (Sec. 3.4): a backbone, the mean over its patch tokens, fc_norm and a linear head. On ADDP's encoder
// without tokenizer_norm this is nn/vit.h's VisionTransformer, under the same names.
#pragma once
#include "addp/backbone.h"

namespace addp {

struct Classifier : OnBackbone<Linear> {
  // The head starts at N(0, 0.01^2).
  Classifier(std::unique_ptr<Backbone> backbone, int64_t classes, const Rng& rng, Options options);

  Var operator()(const Var& image, const Mode& mode = {}) const;  // [B, 3, Hi, Wi] in [0, 1] -> logits [B, classes]
};

}  // namespace addp
