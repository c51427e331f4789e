#include "nn/segmentation_head.h"

#include <cmath>
#include <numeric>

#include "nn/init.h"

namespace addp {

constexpr int64_t kMaxGroups = 8, kMaxUpsamplings = 2;

ConvNormSilu::ConvNormSilu(int64_t in, int64_t out, Options options)
    : conv(in, out, 3, false, options), norm(std::gcd(kMaxGroups, out), out, 1e-5, options) {}

void init_he(const Var& weight, Rng rng) {
  const auto fan_in = static_cast<double>(weight.numel() / weight.dim(0));
  init_normal(weight, 0, std::sqrt(2 / fan_in), rng);
}

static int64_t upsamplings(int64_t stride) {
  int64_t count = 0;
  while (count < kMaxUpsamplings && stride % 2 == 0) ++count, stride /= 2;
  return count;
}

SegmentationHead::SegmentationHead(int64_t in, int64_t width, int64_t stride, int64_t classes, const Rng& rng,
                                   Options options)
    : repeat(stride >> upsamplings(stride)),
      classifier(upsamplings(stride) == 0 ? in : width >> (upsamplings(stride) - 1), classes, 1, true, options) {
  for (int64_t i = 0; i < upsamplings(stride); ++i) {
    up.emplace_back(i == 0 ? in : width >> (i - 1), width >> i, options);
  }
  init_head(*this, rng);
}

Var SegmentationHead::operator()(const Var& map) const {
  Var x = map;
  for (const ConvNormSilu& block : up) x = block(upsample(x, 2));
  const Var logits = classifier(x);
  return repeat > 1 ? upsample(logits, repeat) : logits;
}

}  // namespace addp
