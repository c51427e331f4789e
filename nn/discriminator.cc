// Discriminator and adversarial losses.
#include "nn/discriminator.h"

#include <algorithm>
#include <cmath>

namespace addp {

constexpr int64_t kKernel = 4;
constexpr Padding kPadding{1, 1, 1, 1};
constexpr double kSlope = 0.2;

static int64_t channels_at(const DiscriminatorConfig& config, int64_t layer) {
  return config.ndf * std::min<int64_t>(int64_t{1} << layer, 8);
}

Discriminator::Discriminator(const DiscriminatorConfig& config, Options options)
    : conv_in(config.image_channels, config.ndf, kKernel, 2, kPadding, true, options),
      conv_out(channels_at(config, config.n_layers), 1, kKernel, 1, kPadding, true, options) {
  for (int64_t n = 1; n <= config.n_layers; ++n) {
    const int64_t stride = n < config.n_layers ? 2 : 1;
    conv.emplace_back(channels_at(config, n - 1), channels_at(config, n), kKernel, stride, kPadding, false, options);
    norm.emplace_back(channels_at(config, n), 1e-5, 0.1, true, options);
  }
}

Var Discriminator::operator()(const Var& image, const Mode& mode) const {
  Var h = leaky_relu(conv_in(image), kSlope);
  for (size_t i = 0; i < conv.size(); ++i) h = leaky_relu(norm[i](conv[i](h), mode.train), kSlope);
  return conv_out(h);
}

Var hinge_discriminator_loss(const Var& logits_real, const Var& logits_fake) {
  return 0.5 * (mean(relu(affine(logits_real, -1, 1))) + mean(relu(affine(logits_fake, 1, 1))));
}

Var hinge_generator_loss(const Var& logits_fake) { return -mean(logits_fake); }

static double norm_of_gradient(const Var& loss, const Var& wrt) {
  const NoGrad no_grad;
  return std::sqrt(sum(square(Var(gradient(loss, wrt)))).item());
}

double adaptive_gan_weight(const Var& nll, const Var& generator_loss, const Var& last, double scale, double limit) {
  const double ratio = norm_of_gradient(nll, last) / (norm_of_gradient(generator_loss, last) + 1e-4);
  return scale * std::clamp(ratio, 0.0, limit);
}

}  // namespace addp
