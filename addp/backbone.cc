#include "addp/backbone.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "autograd/ops.h"
#include "nn/init.h"
#include "nn/state_dict.h"

namespace addp {
namespace {

Config with_image_size(Config config, int64_t image_size) {
  if (image_size > 0) config.image_size = image_size;
  check_as(ErrorKind::usage, config.image_size % config.patch_size == 0, "backbone: images of ", config.image_size,
           " pixels cannot be cut into patches of ", config.patch_size);
  return config;
}

// Keys' cubic convolution kernel with PyTorch's a = -0.75.
double cubic(double x) {
  constexpr double a = -0.75;
  x = std::abs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

// One output pixel along an axis: four source pixels, repeated at the border, and their weights.
struct CubicTaps {
  std::array<int64_t, 4> source;
  std::array<double, 4> weight;
};

std::vector<CubicTaps> cubic_taps(int64_t from, int64_t to) {
  std::vector<CubicTaps> taps(static_cast<size_t>(to));
  for (int64_t i = 0; i < to; ++i) {
    const double at = (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
    const auto first = static_cast<int64_t>(std::floor(at)) - 1;
    for (int64_t k = 0; k < 4; ++k) {
      taps[i].source[k] = std::clamp<int64_t>(first + k, 0, from - 1);
      taps[i].weight[k] = cubic(at - static_cast<double>(first + k));
    }
  }
  return taps;
}

}  // namespace

EncoderBackbone::EncoderBackbone(Config config, const BackboneOptions& backbone, const Rng& rng, Options options)
    : encoder_((config = with_image_size(std::move(config), backbone.image_size)), options),
      tokenizer_norm_(backbone.tokenizer_norm) {
  image_size = config.image_size, grid = config.grid(), width = config.model.width, depth = config.model.depth;
  const double last = static_cast<double>(std::max<int64_t>(1, depth - 1));
  for (int64_t i = 0; i < depth; ++i) {
    encoder_.blocks[i].drop_path_rate = backbone.drop_path * static_cast<double>(i) / last;
  }
  init_transformer(encoder_, rng);
  copy_into(encoder_.pos_embed.value(), sincos_positions(grid, width, options));
}

void EncoderBackbone::start_from(const PixelEncoder& pretrained) {
  PixelEncoder source = pretrained;  // shares the tensors; visit is for changing ones
  StateDict state = state_dict(source);
  state["pos_embed"] = resize_positions(state.at("pos_embed"), grid);
  load_state_dict(encoder_, state, {.source = "pixel encoder"});
}

Var EncoderBackbone::patch_tokens(const Var& image, const Mode& mode) const {
  check(image.rank() == 4 && image.dim(2) == image_size && image.dim(3) == image_size,
        "patch_tokens: image must be [B, 3, ", image_size, ", ", image_size, "], found ", image.shape());
  const Var embedded = encoder_.embed(image);
  const Var tokens = encoder_.run_blocks(tokenizer_norm_ ? encoder_.tokenizer_norm(embedded) : embedded, mode);
  return slice(tokens, 1, 1, tokens.dim(1));
}

void EncoderBackbone::visit_tensors(const std::string& prefix, const TensorVisitor& f) {
  encoder_.visit("", [&](const std::string& name, Var& var, Role role) {
    const bool unused = name.starts_with("norm.") || (!tokenizer_norm_ && name.starts_with("tokenizer_norm."));
    if (!unused) f(prefix + name, var, role);
  });
}

Tensor resize_positions(const Tensor& positions, int64_t to) {
  const int64_t D = positions.dim(2), L = positions.dim(1) - 1;
  const int64_t from = std::llround(std::sqrt(static_cast<double>(L)));
  check(positions.rank() == 3 && positions.dim(0) == 1 && from * from == L && to > 0,
        "resize_positions: positions must be [1, 1 + grid^2, D], found ", positions.shape());
  if (from == to) return positions;
  const std::vector<double> in = to_vector<double>(positions);
  std::vector<double> out(static_cast<size_t>((1 + to * to) * D), 0.0);
  std::copy(in.begin(), in.begin() + D, out.begin());
  const std::vector<CubicTaps> taps = cubic_taps(from, to);
  for (int64_t y = 0; y < to; ++y) {
    for (int64_t x = 0; x < to; ++x) {
      double* row = &out[static_cast<size_t>((1 + y * to + x) * D)];
      for (int64_t k = 0; k < 16; ++k) {
        const double weight = taps[y].weight[k / 4] * taps[x].weight[k % 4];
        const double* source = &in[static_cast<size_t>((1 + taps[y].source[k / 4] * from + taps[x].source[k % 4]) * D)];
        for (int64_t d = 0; d < D; ++d) row[d] += weight * source[d];
      }
    }
  }
  return addp::to(from_vector(out, {1, 1 + to * to, D}), positions.options());
}

Tensor resize_grid_positions(const Tensor& positions, int64_t to) {
  const NoGrad no_grad;
  const Var class_row(zeros({1, 1, positions.dim(2)}, positions.options()));
  const Tensor resized = resize_positions(concat({class_row, Var(positions)}, 1).value(), to);
  return slice(Var(resized), 1, 1, resized.dim(1)).value();
}

}  // namespace addp
