// The token predictor (MAGE): tells, from some known tokens, how likely each code is at the other places. In ADDP it is
// frozen and gives both the unreliable tokens and the targets (Sec. 3.2, 3.3); this file also has its own training
// loss.
#pragma once
#include <string>
#include <vector>

#include "addp/config.h"
#include "addp/masking.h"
#include "addp/mlm_head.h"
#include "nn/transformer.h"

namespace addp {

// BERT's embedding: word + position, LayerNorm (eps 1e-6), dropout.
struct TokenEmbedding {
  TokenEmbedding(const Config& config, Options options);

  Var operator()(const Tensor& ids, Mode mode) const;  // ids: [B, N] in [0, V) -> [B, N, D]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    if (position_ids.defined()) f(prefix + "position_ids", position_ids, Role::buffer);
    f(prefix + "word_embeddings.weight", word_embeddings, Role::parameter);
    f(prefix + "position_embeddings.weight", position_embeddings, Role::parameter);
    layer_norm.visit(prefix + "LayerNorm.", f);
  }

  Var position_ids;         // [1, position_rows] i64; part of official checkpoints, never read
  Var word_embeddings;      // [V, D]
  Var position_embeddings;  // [position_rows, D]
  LayerNorm layer_norm;
  double dropout_rate;
};

// MAGE's masks as the predictor computes with them: on its device, with the indices that follow from them. m of the L
// tokens are masked. Indices are i64; of those that are undefined the networks compute all rows.
struct PlacedMasks {
  Tensor mask_all;  // [B, L]
  Tensor kept;      // [B, 1 + L - dropped], places of the class token and of the tokens that are not dropped
  Tensor read;      // [B, 1 + L - m], rows of the kept sequence that the decoder reads
  Tensor restore;   // [B, 1 + L], for each place the row of the encoder's output that it reads in the decoder
  Tensor asked;     // [B, m], places whose logits are asked for
};
// All rows of both networks, in sizes that do not depend on mask_all.
PlacedMasks place(const Tensor& mask_all, const Tensor& mask_dropped, Options options);
// Only rows that the logits of masked places depend on. Throws unless all images have the same number of those.
PlacedMasks place_needed(const Tensor& mask_all, const Tensor& mask_dropped, Options options);

struct TokenPredictor {
  TokenPredictor(const Config& config, Options options);

  // Reads the tokens that are not dropped; where mask_all is 1 the mask id stands in for the code.
  //   codes: [B, L] i64; mask_all, mask_dropped: [B, L], 1 = masked, 1 = dropped (a subset of mask_all)
  //   -> latent [B, 1 + L - dropped, D], or the rows masks.read of it; the class token first
  Var forward_encoder(const Tensor& codes, const Tensor& mask_all, const Tensor& mask_dropped, Mode mode = {}) const;
  Var forward_encoder(const Tensor& codes, const PlacedMasks& masks, Mode mode = {}) const;

  // Puts the kept tokens back at their places. Every masked place, dropped or not, holds the class token's output.
  //   latent: forward_encoder's -> logits [B, 1 + L, V], the class token's place first, or those of masks.asked
  Var forward_decoder(const Var& latent, const PlacedMasks& masks, Mode mode = {}) const;

  // Cross entropy with label smoothing over V, mean over the masked places. logits: forward_decoder's -> [].
  Var forward_loss(const Var& logits, const Tensor& codes, const PlacedMasks& masks) const;

  struct Result {
    Var latent, logits, loss;
  };
  // MAGE training with given masks, and with masks drawn from rng. MageMasks: only what is needed is computed.
  Result forward(const Tensor& codes, const MageMasks& masks, Mode mode = {}) const;
  Result forward(const Tensor& codes, const PlacedMasks& masks, Mode mode = {}) const;
  Result forward(const Tensor& codes, Rng& rng, Mode mode) const;

  // P(codes, mask) of ADDP: softmax over the K codes, nothing dropped, nothing recorded, no dropout.
  //   codes: [B, L] i64, mask: [B, L], 1 = not known -> [B, L, K], to be read where mask is 1
  Tensor predict(const Tensor& codes, const Tensor& mask) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    token_emb.visit(prefix + "token_emb.", f);
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i].visit(prefix + "blocks." + std::to_string(i) + ".", f);
    norm.visit(prefix + "norm.", f);
    decoder_embed.visit(prefix + "decoder_embed.", f);
    f(prefix + "decoder_pos_embed_learned", decoder_pos_embed_learned, Role::parameter);
    for (size_t i = 0; i < decoder_blocks.size(); ++i)
      decoder_blocks[i].visit(prefix + "decoder_blocks." + std::to_string(i) + ".", f);
    decoder_norm.visit(prefix + "decoder_norm.", f);
    mlm_layer.visit(prefix + "mlm_layer.", f);
    for (auto& [name, var] : unused) f(prefix + name, var, Role::parameter);
  }

  Config config;
  TokenEmbedding token_emb;
  std::vector<Block> blocks;
  LayerNorm norm;
  Linear decoder_embed;
  Var decoder_pos_embed_learned;  // [1, 1 + L, D]
  std::vector<Block> decoder_blocks;
  LayerNorm decoder_norm;
  MlmHead mlm_layer;
  std::vector<std::pair<std::string, Var>> unused;  // only with Config::unused_parameters
};

// Starting values (nn/init.h).
void initialize(TokenPredictor& predictor, const Rng& rng);

}  // namespace addp
