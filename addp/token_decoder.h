// The token decoder D (Sec. 3.1, second half of pixel-to-token generation): predicts the codes of the unreliable places
// from the encoder's view of the noisy image and from the reliable tokens.
#pragma once
#include <string>
#include <vector>

#include "addp/config.h"
#include "addp/masking.h"
#include "addp/mlm_head.h"
#include "nn/transformer.h"

namespace addp {

struct TokenDecoder {
  TokenDecoder(const Config& config, Options options);

  // Sequence of 1 + L + (L - m) tokens, m unreliable places in every image of the batch:
  //   places 0..L  decoder_embed(latent) where reliable, mask_token where unreliable and at the class place;
  //   the rest     token_emb(codes) of the reliable places, in raster order (left out when with_tokens is false).
  // latent: E(x_t) [B, 1 + L, D], may be undefined when all places are unreliable; codes: [B, L] i64, read at reliable
  // places only; mask_t: [B, L], 1 = unreliable -> logits [B, 1 + L + (L - m), V]
  Var forward(const Var& latent, const Tensor& codes, const Tensor& mask_t, bool with_tokens = true,
              Mode mode = {}) const;

  // The same, but only what is needed: the unreliable places' logits, from the rows of E(x_t) that are read.
  //   latent: [B, 1 + L - m, D], those of reliable_rows(mask_t) -> logits [B, m, V], those of unreliable_rows(mask_t)
  Var forward_unreliable(const Var& latent, const Tensor& codes, const Tensor& mask_t, bool with_tokens = true,
                         Mode mode = {}) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "mask_token", mask_token, Role::parameter);
    f(prefix + "decoder_pos_embed_learned", decoder_pos_embed_learned, Role::parameter);
    f(prefix + "decoder_pos_token_embed", decoder_pos_token_embed, Role::parameter);
    f(prefix + "decoder_pos_mask_embed", decoder_pos_mask_embed, Role::parameter);
    f(prefix + "token_emb.weight", token_emb, Role::parameter);
    decoder_embed.visit(prefix + "decoder_embed.", f);
    for (size_t i = 0; i < decoder_blocks.size(); ++i)
      decoder_blocks[i].visit(prefix + "decoder_blocks." + std::to_string(i) + ".", f);
    decoder_norm.visit(prefix + "decoder_norm.", f);
    mlm_layer.visit(prefix + "mlm_layer.", f);
  }

  int64_t L;
  Var mask_token;                 // [1, 1, D]
  Var decoder_pos_embed_learned;  // [1, 1 + L, D], positions of the class place and of reliable places
  Var decoder_pos_token_embed;    // [1, 1 + L, D], positions of the appended tokens (row 0 unused)
  Var decoder_pos_mask_embed;     // [1, 1 + L, D], positions of unreliable places (row 0 unused)
  Var token_emb;                  // [V, D]
  Linear decoder_embed;
  std::vector<Block> decoder_blocks;
  LayerNorm decoder_norm;
  MlmHead mlm_layer;

 private:
  // seen: [B, 1 + L, D], undefined where nothing is read; rows: [B, M] i64, those whose logits are wanted.
  Var run(const Var& seen, const Tensor& codes, const Tensor& mask_t, bool with_tokens, Mode mode,
          const Tensor& rows) const;
  Var place_sequence(const Var& seen, const Tensor& mask_t) const;                  // [B, 1 + L, D]
  Var reliable_sequence(const Tensor& codes, const Tensor& reliable_places) const;  // [B, L - m, D]
};

}  // namespace addp
