// VGG16's convolutions and the distance of their features.
#include "nn/lpips.h"

#include <array>

namespace addp {

// slice, place in torchvision's vgg16.features, channels in and out
struct VggConv {
  int64_t slice, place, in, out;
};
constexpr std::array<VggConv, 13> kVgg16{{{0, 0, 3, 64},
                                          {0, 2, 64, 64},
                                          {1, 5, 64, 128},
                                          {1, 7, 128, 128},
                                          {2, 10, 128, 256},
                                          {2, 12, 256, 256},
                                          {2, 14, 256, 256},
                                          {3, 17, 256, 512},
                                          {3, 19, 512, 512},
                                          {3, 21, 512, 512},
                                          {4, 24, 512, 512},
                                          {4, 26, 512, 512},
                                          {4, 28, 512, 512}}};
constexpr int64_t kSlices = 5;

static std::string layer_name(const VggConv& c) { return concat_text("slice", c.slice + 1, ".", c.place, "."); }

Lpips::Lpips(Options options) {
  std::array<int64_t, kSlices> channels{};
  for (const VggConv& c : kVgg16) {
    layers.push_back({layer_name(c), c.slice, Conv2d(c.in, c.out, 3, true, options)});
    channels[static_cast<size_t>(c.slice)] = c.out;
  }
  for (int64_t c : channels) heads.emplace_back(c, 1, 1, false, options);
  set_trainable(*this, false);
}

// The same values in another precision; gradients are converted back.
static Var converted(const Var& x, Options options) {
  if (x.options().dtype == options.dtype) return x;
  const Options from = x.options();
  return record("convert", to(x.value(), options), {x}, [from](const Tensor& dy) { return Gradients{to(dy, from)}; });
}

std::vector<Var> Lpips::features(const Var& image) const {
  // ImageNet's statistics for pixels in [-1, 1], rounded as the original has them.
  constexpr double kShift[3] = {-0.030, -0.088, -0.188}, kScale[3] = {0.458, 0.448, 0.450};
  std::vector<Var> channels;
  for (int64_t c = 0; c < 3; ++c)
    channels.push_back(affine(slice(image, 1, c, c + 1), 1 / kScale[c], -kShift[c] / kScale[c]));
  Var h = concat(channels, 1);
  std::vector<Var> found;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (i > 0 && layers[i].slice != layers[i - 1].slice) h = max_pool(h, 2);
    h = relu(layers[i].conv(h));
    if (i + 1 == layers.size() || layers[i + 1].slice != layers[i].slice) found.push_back(unit_norm(h, 1, 1e-10));
  }
  return found;
}

Var Lpips::operator()(const Var& a, const Var& b) const {
  check(a.rank() == 4 && a.dim(1) == 3 && a.shape() == b.shape() && a.dim(2) >= 16 && a.dim(3) >= 16,
        "lpips: images must both be [B, 3, H, W] with sides of at least 16, found ", a.shape(), " and ", b.shape());
  const Options own = heads[0].weight.options();
  const std::vector<Var> features_a = features(converted(a, own)), features_b = features(converted(b, own));
  Var distance;
  for (size_t i = 0; i < heads.size(); ++i) {
    const Var weighted = heads[i](square(features_a[i] - features_b[i]));  // [B, 1, h, w]
    const Var part = mean_axis(reshape(weighted, {a.dim(0), -1}), 1);
    distance = distance.defined() ? distance + part : part;
  }
  return converted(distance, a.options());
}

StateDict lpips_state_from_vgg16(const StateDict& vgg16) {
  StateDict state;
  for (const auto& [name, tensor] : vgg16) {
    if (name.rfind("classifier.", 0) == 0) continue;
    std::string renamed = name;
    for (const VggConv& c : kVgg16) {
      const std::string theirs = concat_text("features.", c.place, ".");
      if (name.rfind(theirs, 0) == 0) renamed = "net." + layer_name(c) + name.substr(theirs.size());
    }
    state[renamed] = tensor;
  }
  return state;
}

}  // namespace addp
