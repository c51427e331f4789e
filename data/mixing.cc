// Beta as a ratio of gamma variates (Marsaglia & Tsang 2000), and the two ways to mix.
#include "data/mixing.h"

#include <algorithm>
#include <cmath>

namespace addp {
namespace {

double draw_gamma(double shape, Rng& rng) {
  if (shape < 1) return draw_gamma(shape + 1, rng) * std::pow(1 - rng.uniform(), 1 / shape);
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = rng.normal(), root = 1 + c * x, v = root * root * root;
    if (v > 0 && std::log(1 - rng.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

// share * images + (1 - share) * their partners
Tensor blend(const Tensor& images, float share) {
  const int64_t B = images.dim(0), each = images.numel() / B;
  Tensor mixed = empty_like(images);
  const float* in = images.ptr<float>();
  float* out = mixed.ptr<float>();
  for (int64_t i = 0; i < B; ++i) {
    const float *own = in + i * each, *partner = in + (B - 1 - i) * each;
    for (int64_t k = 0; k < each; ++k) out[i * each + k] = share * own[k] + (1 - share) * partner[k];
  }
  return mixed;
}

// A rectangle of 1 - share of the area, cut off at the edges, comes from the partner; share becomes what is left.
Tensor paste(const Tensor& images, double& share, Rng& rng) {
  const int64_t B = images.dim(0), H = images.dim(2), W = images.dim(3);
  const double ratio = std::sqrt(1 - share);
  const auto range = [&](int64_t extent) {
    const int64_t half = static_cast<int64_t>(static_cast<double>(extent) * ratio) / 2, centre = rng.below(extent);
    return std::pair(std::max<int64_t>(0, centre - half), std::min(extent, centre + half));
  };
  const auto [top, bottom] = range(H);
  const auto [left, right] = range(W);
  share = 1 - static_cast<double>((bottom - top) * (right - left)) / static_cast<double>(H * W);
  Tensor mixed = clone(images);
  for (int64_t plane = 0; plane < B * 3; ++plane) {
    const int64_t partner = (B - 1 - plane / 3) * 3 + plane % 3;
    for (int64_t y = top; y < bottom; ++y) {
      const float* from = images.ptr<float>() + (partner * H + y) * W;
      std::copy(from + left, from + right, mixed.ptr<float>() + (plane * H + y) * W + left);
    }
  }
  return mixed;
}

}  // namespace

double draw_beta(double a, double b, Rng& rng) {
  const double x = draw_gamma(a, rng), y = draw_gamma(b, rng);
  return x + y > 0 ? x / (x + y) : 0.5;  // both underflow for very small a and b
}

MixedBatch mix(const Batch& batch, int64_t classes, const MixOptions& options, Rng& rng) {
  const int64_t B = batch.images.dim(0);
  double share = 1;
  Tensor images = batch.images;
  const bool both = options.mixup > 0 && options.cutmix > 0;
  const bool cuts = both ? rng.uniform() < options.switch_to_cutmix : options.cutmix > 0;
  if (cuts) {
    share = draw_beta(options.cutmix, options.cutmix, rng);
    images = paste(images, share, rng);
  } else if (options.mixup > 0) {
    share = draw_beta(options.mixup, options.mixup, rng);
    images = blend(images, static_cast<float>(share));
  }
  Tensor targets = zeros({B, classes});
  const int64_t* label = batch.labels.ptr<int64_t>();
  for (int64_t i = 0; i < B; ++i) {
    check(label[i] >= 0 && label[i] < classes, "mix: label ", label[i], " is not among ", classes, " classes");
    float* row = targets.ptr<float>() + i * classes;
    row[label[i]] += static_cast<float>(share);
    row[label[B - 1 - i]] += static_cast<float>(1 - share);
  }
  return {images, targets};
}

}  // namespace addp
