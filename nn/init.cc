// Random numbers are drawn in float64 and rounded, so that float32 and float64 models start at the same point.
#include "nn/init.h"

#include <cmath>

namespace addp {

constexpr Options kHostDouble{DType::f64, Device::cpu};

// var = scale * numbers + shift
static void write_scaled(const Var& var, const Tensor& numbers, double scale, double shift) {
  std::vector<double> values = to_vector<double>(numbers);
  for (double& v : values) v = scale * v + shift;
  copy_into(var.value(), from_vector(values, var.shape()));
}

void init_uniform(const Var& var, double low, double high, Rng rng) {
  write_scaled(var, rng.uniform(var.shape(), kHostDouble), high - low, low);
}

void init_normal(const Var& var, double mean, double deviation, Rng rng) {
  write_scaled(var, rng.normal(var.shape(), kHostDouble), deviation, mean);
}

void init_xavier(const Var& weight, Rng rng) {
  const int64_t out = weight.dim(0), in = weight.numel() / out;
  const double bound = std::sqrt(6.0 / static_cast<double>(in + out));
  init_uniform(weight, -bound, bound, rng);
}

void init_torch_default(const Var& var, int64_t fan_in, Rng rng) {
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  init_uniform(var, -bound, bound, rng);
}

Tensor sincos_positions(int64_t grid, int64_t D, Options options) {
  check(D % 4 == 0, "sincos_positions: the width must be a multiple of 4, found ", D);
  const int64_t quarter = D / 4;
  std::vector<double> values(static_cast<size_t>((1 + grid * grid) * D), 0.0);
  for (int64_t l = 0; l < grid * grid; ++l) {
    const int64_t position[2] = {l % grid, l / grid};  // MAE's order: the column first
    double* row = &values[static_cast<size_t>((1 + l) * D)];
    for (int64_t half = 0; half < 2; ++half) {
      for (int64_t i = 0; i < quarter; ++i) {
        const double frequency = std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(quarter));
        const double angle = static_cast<double>(position[half]) * frequency;
        row[half * 2 * quarter + i] = std::sin(angle);
        row[half * 2 * quarter + quarter + i] = std::cos(angle);
      }
    }
  }
  return to(from_vector(values, {1, 1 + grid * grid, D}), options);
}

// ---- Transformers

static bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

static bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

void init_transformer_tensor(const std::string& name, const Var& var, Rng rng) {
  constexpr double kDeviation = 0.02;
  if (var.rank() < 2 || ends_with(name, "bias")) return;
  const bool is_table = contains(name, "emb.") || contains(name, "embeddings.");
  if (is_table || ends_with(name, "_token") || contains(name, "pos_")) init_normal(var, 0, kDeviation, rng);
  else init_xavier(var, rng);
}

void initialize(VisionTransformer& model, const Rng& rng) {
  init_transformer(model, rng);
  const int64_t grid = model.config.image_size / model.config.patch_size;
  copy_into(model.pos_embed.value(), sincos_positions(grid, model.config.width, model.pos_embed.options()));
}

// ---- Convolutional models

// PyTorch's default for convolutions; a bias follows its weight in visiting order and shares its fan-in.
template <class Module>
static void init_convolutions(Module& module, const Rng& rng) {
  int64_t fan_in = 0;  // of the latest convolution; 0 after a norm's weight
  for (const NamedVar& p : parameters(module)) {
    const bool is_weight = ends_with(p.name, ".weight");
    if (is_weight) fan_in = p.var.rank() == 4 ? p.var.numel() / p.var.dim(0) : 0;
    if (fan_in > 0) init_torch_default(p.var, fan_in, rng.fork(p.name));
  }
}

void initialize(Vqgan& model, const Rng& rng) {
  init_convolutions(model, rng);
  const double bound = 1 / static_cast<double>(model.config.codebook_size);
  init_uniform(model.codebook(), -bound, bound, rng.fork("quantize.embedding.weight"));
}

void initialize(Discriminator& model, const Rng& rng) {
  init_convolutions(model, rng);
  for (const NamedVar& p : parameters(model)) {
    if (!ends_with(p.name, ".weight")) continue;
    init_normal(p.var, p.var.rank() == 1 ? 1 : 0, 0.02, rng.fork(p.name));
  }
}

}  // namespace addp
