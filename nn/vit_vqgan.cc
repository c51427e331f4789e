#include "nn/vit_vqgan.h"

#include "nn/init.h"

namespace addp {

static VqganConfig quantizer_config(const VitVqganConfig& config) {
  VqganConfig c;
  c.codebook_size = config.codebook_size, c.codebook_dim = config.codebook_dim, c.beta = config.beta;
  return c;
}

static std::vector<Block> blocks_of(const VitVqganConfig& config, int64_t depth, Options options) {
  std::vector<Block> list;
  for (int64_t i = 0; i < depth; ++i) list.emplace_back(config.width, config.heads, config.mlp_ratio, 0, options);
  return list;
}

VitVqgan::VitVqgan(const VitVqganConfig& config, Options options)
    : config(config),
      patch_embed(3, config.width, config.patch_size, options),
      pos_embed(parameter({1, config.grid() * config.grid(), config.width}, options)),
      blocks(blocks_of(config, config.depth, options)),
      norm(config.width, 1e-6, options),
      to_code(config.width, config.codebook_dim, true, options),
      quantizer(quantizer_config(config), options),
      from_code(config.codebook_dim, config.width, true, options),
      decoder_pos_embed(parameter({1, config.grid() * config.grid(), config.width}, options)),
      decoder_blocks(blocks_of(config, config.decoder_depth, options)),
      decoder_norm(config.width, 1e-6, options),
      to_pixels(config.width, 3 * config.patch_size * config.patch_size, true, options) {
  quantizer.unit_codes = true;
}

Var VitVqgan::encode(const Var& image) const {
  const int64_t grid = config.grid();
  check(image.rank() == 4 && image.dim(2) == config.image_size && image.dim(3) == config.image_size,
        "vit-vqgan: image must be [B, 3, ", config.image_size, ", ", config.image_size, "], found ", image.shape());
  Var x = patch_embed(affine(image, 2, -1)) + pos_embed;
  for (const Block& block : blocks) x = block(x);
  const Var z = unit_norm(to_code(norm(x)), -1, kUnitEps);
  return reshape(permute(z, {0, 2, 1}), {image.dim(0), config.codebook_dim, grid, grid});
}

Var VitVqgan::decode(const Var& z_q) const {
  return decode_tokens(permute(reshape(z_q, {z_q.dim(0), z_q.dim(1), -1}), {0, 2, 1}));
}

Var VitVqgan::decode_tokens(const Var& tokens) const {
  const int64_t B = tokens.dim(0), g = config.grid(), p = config.patch_size;
  Var x = from_code(tokens) + decoder_pos_embed;
  for (const Block& block : decoder_blocks) x = block(x);
  const Var patches = reshape(to_pixels(decoder_norm(x)), {B, g, g, 3, p, p});
  const Var image = reshape(permute(patches, {0, 3, 1, 4, 2, 5}), {B, 3, g * p, g * p});
  return affine(image, 0.5, 0.5);  // the network works in [-1, 1]
}

Tensor VitVqgan::encode_codes(const Var& image) const {
  const NoGrad no_grad;
  return quantizer.codes(encode(image));
}

void initialize(VitVqgan& model, const Rng& rng) {
  init_transformer(model, rng);
  const int64_t L = model.config.grid() * model.config.grid(), D = model.config.width;
  const Tensor positions = sincos_positions(model.config.grid(), D, model.pos_embed.options());
  for (const Var& var : {model.pos_embed, model.decoder_pos_embed})
    copy_into(var.value(), positions.view(D, {1, L, D}));
  init_normal(model.quantizer.embedding.weight, 0, 1, rng.fork("codebook"));
}

}  // namespace addp
