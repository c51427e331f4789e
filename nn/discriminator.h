// The adversarial part of VQGAN training (Esser et al. 2021): PatchGAN discriminator (Isola et al. 2017) under taming's
// names, hinge losses, and the weight that balances them against the reconstruction.
#pragma once
#include <string>
#include <vector>

#include "nn/layers.h"

namespace addp {

struct DiscriminatorConfig {
  int64_t image_channels = 3;
  int64_t ndf = 64;      // channels of the first layer; they double with each, up to 8 ndf
  int64_t n_layers = 3;  // stride-2 convolutions
};

// conv, LeakyReLU, then n_layers times conv (the last with stride 1), BatchNorm, LeakyReLU, then conv to one logit a
// patch. All kernels 4, padding 1.
struct Discriminator {
  Discriminator(const DiscriminatorConfig& config, Options options);

  // image: [B, C, H, W] -> logits [B, 1, h, w]. mode.train: batch statistics, which also move the running ones.
  Var operator()(const Var& image, const Mode& mode) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    // Places in taming's flat list, where each LeakyReLU takes one too.
    const auto at = [&](size_t index) { return prefix + "main." + std::to_string(index) + "."; };
    conv_in.visit(at(0), f);
    for (size_t i = 0; i < conv.size(); ++i) {
      conv[i].visit(at(2 + 3 * i), f);
      norm[i].visit(at(3 + 3 * i), f);
    }
    conv_out.visit(at(2 + 3 * conv.size()), f);
  }

  Conv2d conv_in;
  std::vector<Conv2d> conv;
  std::vector<BatchNorm> norm;
  Conv2d conv_out;
};

// Hinge losses -> []. In the discriminator's step the fake image is detached.
Var hinge_discriminator_loss(const Var& logits_real, const Var& logits_fake);  // stuck at 1: it learns nothing
Var hinge_generator_loss(const Var& logits_fake);

// scale * min(|d nll / d last| / (|d generator_loss / d last| + 1e-4), limit): makes both gradients equally strong at
// the decoder's last layer (last: decoder.conv_out.weight). Keeps both graphs for a later backward().
double adaptive_gan_weight(const Var& nll, const Var& generator_loss, const Var& last, double scale = 0.8,
                           double limit = 1e4);

}  // namespace addp
