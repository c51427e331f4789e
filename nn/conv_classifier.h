// A small convolutional classifier for images of any size. Trained on a data set itself, its features say how much
// generated images look like that data set's, where InceptionV3's weights are not at hand or know nothing of such
// images.
#pragma once
#include <string>
#include <vector>

#include "nn/layers.h"
#include "tensor/random.h"

namespace addp {

struct ConvClassifierConfig {
  int64_t width = 32;  // channels of the first layer, a multiple of 8
  int64_t stages = 2;  // how often sides are halved and channels doubled

  int64_t features() const { return width << stages; }  // D

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "width", width);
    f(prefix + "stages", stages);
  }
};

struct ConvClassifier {
  ConvClassifier(const ConvClassifierConfig& config, int64_t classes, Options options);

  struct Output {
    Var features;  // [B, D], mean over the last map
    Var logits;    // [B, V], V classes
  };
  Output operator()(const Var& image) const;  // [B, 3, Hi, Wi] in [0, 1]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    for (size_t i = 0; i < convs.size(); ++i) {
      convs[i].visit(prefix + "convs." + std::to_string(i) + ".", f);
      norms[i].visit(prefix + "norms." + std::to_string(i) + ".", f);
    }
    head.visit(prefix + "head.", f);
  }

  std::vector<Conv2d> convs;  // 3 x 3, each followed by its norm and SiLU
  std::vector<GroupNorm> norms;
  Linear head;
};

void initialize(ConvClassifier& model, const Rng& rng);  // PyTorch's default

}  // namespace addp
