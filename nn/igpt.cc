#include "nn/igpt.h"

#include <algorithm>
#include <array>
#include <set>

#include "autograd/codes.h"
#include "nn/init.h"
#include "nn/kmeans.h"

namespace addp {

// [B, 3, h, w] -> [B, h w, 3]
static Tensor pixels_of(const Tensor& images) {
  const NoGrad no_grad;
  check(images.rank() == 4 && images.dim(1) == 3, "palette: images must be [B, 3, h, w], found ", images.shape());
  return permute(Var(images.reshape({images.dim(0), 3, -1})), {0, 2, 1}).value();
}

Palette::Palette(int64_t colours, Options options) : colours(buffer({colours, 3}, options)) {}

void Palette::fit(const Tensor& images, Rng& rng) {
  constexpr int64_t kIterations = 20;
  using Colour = std::array<double, 3>;
  const Tensor pixels = pixels_of(images).reshape({-1, 3});
  const std::vector<double> rows = to_vector<double>(pixels);
  // Half of all pixels may be one colour, the background: the start is chosen among different ones.
  std::set<Colour> different;
  for (size_t i = 0; i < rows.size(); i += 3) different.insert({rows[i], rows[i + 1], rows[i + 2]});
  std::vector<double> start;
  for (const Colour& colour : different) start.insert(start.end(), colour.begin(), colour.end());
  const int64_t K = colours.dim(0);
  const std::vector<double> found = kmeans(pixels, random_rows(start, 3, K, rng), kIterations, rng).centroids;

  std::vector<Colour> sorted;
  for (size_t i = 0; i < found.size(); i += 3) sorted.push_back({found[i], found[i + 1], found[i + 2]});
  const auto light = [](const Colour& c) { return 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]; };
  std::stable_sort(sorted.begin(), sorted.end(), [&](const Colour& a, const Colour& b) { return light(a) < light(b); });
  std::vector<double> values;
  for (const Colour& colour : sorted) values.insert(values.end(), colour.begin(), colour.end());
  copy_into(colours.value(), from_vector(values, {K, 3}));
}

Tensor Palette::codes(const Tensor& images) const { return nearest_codes(pixels_of(images), colours.value()); }

Tensor Palette::image(const Tensor& codes, int64_t rows) const {
  const NoGrad no_grad;
  const int64_t B = codes.dim(0), L = codes.dim(1);
  check(rows > 0 && L % rows == 0, "palette: ", L, " codes do not fill ", rows, " rows");
  return permute(gather_rows(colours, codes), {0, 2, 1}).value().reshape({B, 3, rows, L / rows});
}

static CausalConfig over_pixels(CausalConfig transformer, const IgptConfig& config) {
  transformer.vocabulary = config.colours;
  transformer.tokens = config.size * config.size;
  return transformer;
}

Igpt::Igpt(const IgptConfig& config, CausalConfig transformer, Options options)
    : config(config), palette(config.colours, options), transformer(over_pixels(transformer, config), options) {
  check(config.size > 0 && config.image_size % config.size == 0, "igpt: size ", config.size,
        " must divide the images' ", config.image_size);
}

Tensor Igpt::shrink(const Tensor& images) const {
  const NoGrad no_grad;
  return avg_pool(Var(images), config.image_size / config.size).value();
}

Tensor Igpt::image(const Tensor& codes) const {
  const NoGrad no_grad;
  return upsample(Var(palette.image(codes, config.size)), config.image_size / config.size).value();
}

void initialize(CausalTransformer& model, const Rng& rng) { init_transformer(model, rng); }

void initialize(Igpt& model, const Rng& rng) { initialize(model.transformer, rng); }

}  // namespace addp
