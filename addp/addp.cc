#include "addp/addp.h"

#include "nn/init.h"

namespace addp {

Addp::Addp(const Config& config, Options options) : config(config), encoder(config, options), decoder(config, options) {
  if (!config.unused_parameters) return;
  const int64_t D = config.model.width, P = config.patch_size;
  for (const char* name : {"decoder_pos_embed", "pos_token_embed", "pos_mask_embed"})
    unused.emplace_back(name, parameter({1, 1 + config.tokens(), D}, options));
  unused.emplace_back("decoder_pred.weight", parameter({P * P * 3, D}, options));
  unused.emplace_back("decoder_pred.bias", parameter({P * P * 3}, options));
}

void initialize(Addp& model, const Rng& rng) {
  init_transformer(model, rng);
  const Var& positions = model.encoder.pos_embed;
  copy_into(positions.value(), sincos_positions(model.config.grid(), positions.dim(2), positions.options()));
}

}  // namespace addp
