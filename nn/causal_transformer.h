// A causal transformer over tokens, as GPT-2 and Image GPT (Chen et al. 2020) have it: pre-norm blocks in which place i
// sees places 0..i only. It tells each token from those before it; what it generates is drawn token by token, with the
// keys and values of earlier places kept.
#pragma once
#include <string>
#include <vector>

#include "nn/token_choice.h"
#include "nn/transformer.h"

namespace addp {

struct CausalConfig {
  int64_t vocabulary = 64;  // V
  int64_t tokens = 64;      // L
  int64_t width = 128, depth = 6, heads = 4;
  double mlp_ratio = 4;
  double dropout = 0;         // on the embedded input
  int64_t feature_layer = 0;  // features are what the next block reads after so many; 0: half of them

  int64_t layer() const { return feature_layer > 0 ? feature_layer : (depth + 1) / 2; }

  // V and L are not among the fields: they follow from the tokens that a model reads.
  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "width", width);
    f(prefix + "depth", depth);
    f(prefix + "heads", heads);
    f(prefix + "mlp_ratio", mlp_ratio);
    f(prefix + "dropout", dropout);
    f(prefix + "feature_layer", feature_layer);
  }
};

struct CausalTransformer {
  CausalTransformer(const CausalConfig& config, Options options);

  // Reads [start, codes 0..L-2]. codes: [B, L] i64 in [0, V) -> logits [B, L, V], place l tells code l.
  Var forward(const Tensor& codes, const Mode& mode = {}) const;
  // Mean over all places of the cross entropy, in nats. -> []
  Var loss(const Var& logits, const Tensor& codes) const;

  // What the first `layers` blocks make of each place. Place l has just read code l; the last code is never read, so
  // its place holds the state that tells it. codes: [B, L] -> [B, L, D]
  Var read(const Tensor& codes, int64_t layers, const Mode& mode = {}) const;
  // The representation: read() at config.layer(), after the next block's norm. -> [B, L, D], nothing recorded.
  Tensor features(const Tensor& codes) const;

  // Reads one place more and tells the next. codes: [B], the code at the latest place, undefined at the start;
  // past: one entry a block, empty at the start -> logits [B, V], nothing recorded.
  Tensor next_logits(const Tensor& codes, int64_t B, std::vector<KeyValues>& past) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    token_emb.visit(prefix + "token_emb.", f);
    f(prefix + "start_token", start_token, Role::parameter);
    f(prefix + "pos_embed", pos_embed, Role::parameter);
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i].visit(prefix + "blocks." + std::to_string(i) + ".", f);
    norm.visit(prefix + "norm.", f);
    head.visit(prefix + "head.", f);
  }

  CausalConfig config;
  Embedding token_emb;  // [V, D]
  Var start_token;      // [1, 1, D]
  Var pos_embed;        // [1, L, D]
  std::vector<Block> blocks;
  LayerNorm norm;
  Linear head;  // [V, D]

 private:
  Var embed(const Tensor& codes) const;
};

// Draws codes one by one. prefix: [B, P] with P < L codes that are given, e.g. the upper half of an image; undefined:
// none. -> [B, L]
Tensor sample_codes(const CausalTransformer& model, int64_t B, const TokenChoice& choice, Rng& rng,
                    const Tensor& prefix = {});

}  // namespace addp
