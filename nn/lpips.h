// LPIPS (Zhang et al. 2018): a perceptual distance, the weighted difference of VGG16 features. The weights come from
// files the user has; without them nothing here can stand in for it.
// It computes in its own precision, whatever the images': differences of nearly parallel features lose digits, and with
// unfortunate weights float32 leaves three of the gradient's.
#pragma once
#include <string>
#include <vector>

#include "nn/layers.h"
#include "nn/state_dict.h"

namespace addp {

struct Lpips {
  explicit Lpips(Options options);  // parameters are frozen

  // Images in [-1, 1], [B, 3, H, W], sides at least 16 -> distance of each pair [B], in the images' dtype.
  Var operator()(const Var& a, const Var& b) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    for (Layer& layer : layers) layer.conv.visit(prefix + "net." + layer.name, f);
    for (size_t i = 0; i < heads.size(); ++i) heads[i].visit(prefix + "lin" + std::to_string(i) + ".model.1.", f);
  }

  struct Layer {
    std::string name;  // "slice1.0.": slice and place in torchvision's vgg16.features
    int64_t slice;     // 0 to 4; a max pooling stands before slices 1 to 4
    Conv2d conv;       // 3x3, then ReLU
  };
  std::vector<Layer> layers;
  std::vector<Conv2d> heads;  // one a slice: weights of its channels [1, C, 1, 1]

 private:
  std::vector<Var> features(const Var& image) const;  // after each slice, unit length over channels
};

// Names as torchvision's VGG16 has them (features.0.weight) to those above; other names stay, classifier.* are dropped.
StateDict lpips_state_from_vgg16(const StateDict& vgg16);

}  // namespace addp
