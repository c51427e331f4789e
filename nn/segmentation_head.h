// From a grid of features to a class for each pixel: twofold upsampling with 3x3 convolutions between, as in the simple
// decoders that are put on plain ViTs (SETR-PUP, Zheng et al. 2021).
#pragma once
#include <string>
#include <vector>

#include "nn/layers.h"

namespace addp {

// Convolution 3x3 without bias, GroupNorm, SiLU: the unit of segmentation and detection heads.
struct ConvNormSilu {
  ConvNormSilu(int64_t in, int64_t out, Options options);

  Var operator()(const Var& x) const { return norm.then_silu(conv(x)); }  // [B, in, H, W] -> [B, out, H, W]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    conv.visit(prefix + "conv.", f);
    norm.visit(prefix + "norm.", f);
  }

  Conv2d conv;
  GroupNorm norm;
};

void init_he(const Var& weight, Rng rng);  // N(0, 2 / fan_in) for a convolution's weight (He et al. 2015)
template <class Module>
void init_head(Module& head, const Rng& rng) {
  for (const NamedVar& p : parameters(head)) {
    if (p.var.rank() == 4) init_he(p.var, rng.fork(p.name));
  }
}

struct SegmentationHead {
  // stride: pixels that a cell of the grid covers, a power of two. width: channels after the first of at most two
  // upsamplings; the second halves it. A remaining factor is bridged by repeating the logits.
  SegmentationHead(int64_t in, int64_t width, int64_t stride, int64_t classes, const Rng& rng, Options options);

  Var operator()(const Var& map) const;  // [B, in, g, g] -> logits [B, classes, stride g, stride g]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    for (size_t i = 0; i < up.size(); ++i) up[i].visit(prefix + "up." + std::to_string(i) + ".", f);
    classifier.visit(prefix + "classifier.", f);
  }

  int64_t repeat;  // the remaining factor
  std::vector<ConvNormSilu> up;
  Conv2d classifier;
};

}  // namespace addp
