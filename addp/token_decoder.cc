#include "addp/token_decoder.h"

#include "addp/blocks.h"
#include "autograd/ops.h"

namespace addp {

TokenDecoder::TokenDecoder(const Config& config, Options options)
    : L(config.tokens()),
      mask_token(parameter({1, 1, config.model.width}, options)),
      decoder_pos_embed_learned(parameter({1, 1 + L, config.model.width}, options)),
      decoder_pos_token_embed(parameter({1, 1 + L, config.model.width}, options)),
      decoder_pos_mask_embed(parameter({1, 1 + L, config.model.width}, options)),
      token_emb(parameter({config.vocabulary, config.model.width}, options)),
      decoder_embed(config.model.width, config.model.width, true, options),
      decoder_blocks(make_blocks(config.model, config.model.decoder_depth, config.model.decoder_heads, options)),
      decoder_norm(config.model.width, 1e-6, options),
      mlm_layer(config.model.width, config.vocabulary, options) {}

// Class place and places 1..L: what is seen there, plus where it is.
Var TokenDecoder::place_sequence(const Var& seen, const Tensor& mask_t) const {
  const int64_t B = mask_t.dim(0);
  const Options on = mask_token.options();
  const Var positions = select_rows(to(with_class_place(mask_t, 0), on), expand(decoder_pos_mask_embed, 0, B),
                                    expand(decoder_pos_embed_learned, 0, B));
  if (!seen.defined()) return positions + reshape(mask_token, {-1});
  // The class token's output is not used: the class place holds the mask token, as the unreliable places do.
  return select_rows(to(with_class_place(mask_t, 1), on), reshape(mask_token, {-1}), seen) + positions;
}

// Reliable tokens, each with the position it comes from.
Var TokenDecoder::reliable_sequence(const Tensor& codes, const Tensor& reliable_places) const {
  const Var embedded = gather_rows(token_emb, codes);  // [B, L, D]
  const Var positions = slice(decoder_pos_token_embed, 1, 1, 1 + L);
  return gather_tokens(embedded + positions, reliable_places);
}

Var TokenDecoder::forward(const Var& latent, const Tensor& codes, const Tensor& mask_t, bool with_tokens,
                          Mode mode) const {
  return run(latent.defined() ? decoder_embed(latent) : Var(), codes, mask_t, with_tokens, mode, {});
}

Var TokenDecoder::forward_unreliable(const Var& latent, const Tensor& codes, const Tensor& mask_t, bool with_tokens,
                                     Mode mode) const {
  Var seen;
  if (latent.defined()) seen = gather_tokens(decoder_embed(latent), rows_of_places(mask_t, mask_t));
  return run(seen, codes, mask_t, with_tokens, mode, unreliable_rows(mask_t));
}

Var TokenDecoder::run(const Var& seen, const Tensor& codes, const Tensor& mask_t, bool with_tokens, Mode mode,
                      const Tensor& rows) const {
  check(codes.shape() == mask_t.shape() && codes.dim(-1) == L, "token decoder: codes and mask_t must be [B, ", L,
        "], found ", codes.shape(), ", ", mask_t.shape());
  const Tensor reliable_places = to(places(mask_t, 0), {DType::i64, codes.device()});
  check(seen.defined() || reliable_places.dim(1) == 0,
        "token decoder: without the encoder's output every place must be masked");
  Var x = place_sequence(seen, mask_t);
  if (with_tokens && reliable_places.dim(1) > 0) x = concat({x, reliable_sequence(codes, reliable_places)}, 1);
  return mlm_layer(decoder_norm(run_blocks(decoder_blocks, x, mode, rows)), token_emb);
}

}  // namespace addp
