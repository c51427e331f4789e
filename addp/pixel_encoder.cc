#include "addp/pixel_encoder.h"

#include "addp/blocks.h"
#include "autograd/ops.h"

namespace addp {

Var normalize_pixels(const Var& image) {
  check(image.rank() == 4 && image.dim(1) == 3, "normalize_pixels: image must be [B, 3, Hi, Wi], found ",
        image.shape());
  constexpr double kMean[3] = {0.485, 0.456, 0.406}, kDeviation[3] = {0.229, 0.224, 0.225};
  const Var pixels = clamp(image, 0, 1);
  std::vector<Var> channels;
  for (int64_t c = 0; c < 3; ++c)
    channels.push_back(affine(slice(pixels, 1, c, c + 1), 1 / kDeviation[c], -kMean[c] / kDeviation[c]));
  return concat(channels, 1);
}

PixelEncoder::PixelEncoder(const Config& config, Options options)
    : cls_token(parameter({1, 1, config.model.width}, options)),
      pos_embed(parameter({1, 1 + config.tokens(), config.model.width}, options)),
      patch_embed(3, config.model.width, config.patch_size, options),
      tokenizer_norm(config.model.width, 1e-6, options),
      blocks(make_blocks(config.model, config.model.depth, config.model.heads, options)),
      norm(config.model.width, 1e-6, options),
      dropout_rate(config.model.dropout) {}

Var PixelEncoder::embed(const Var& image) const {
  const Var patches = patch_embed(normalize_pixels(image));  // [B, L, D]
  return concat({expand(cls_token, 0, image.dim(0)), patches}, 1) + pos_embed;
}

Var PixelEncoder::encoder_tokens(const Var& image, Mode mode) const {
  return dropout(tokenizer_norm(embed(image)), dropout_rate, mode);
}

Var PixelEncoder::run_blocks(const Var& tokens, Mode mode, const Tensor& rows) const {
  return addp::run_blocks(blocks, tokens, mode, rows);
}

Var PixelEncoder::forward(const Var& noisy_image, Mode mode, const Tensor& rows) const {
  return norm(run_blocks(encoder_tokens(noisy_image, mode), mode, rows));
}

}  // namespace addp
