#include "nn/causal_transformer.h"

namespace addp {

CausalTransformer::CausalTransformer(const CausalConfig& config, Options options)
    : config(config),
      token_emb(config.vocabulary, config.width, options),
      start_token(parameter({1, 1, config.width}, options)),
      pos_embed(parameter({1, config.tokens, config.width}, options)),
      norm(config.width, 1e-6, options),
      head(config.width, config.vocabulary, false, options) {
  check(config.tokens >= 2 && config.depth >= 1 && config.layer() <= config.depth,
        "causal transformer: expected at least 2 tokens, a block, and features of one of the blocks, found ",
        config.tokens, " tokens, ", config.depth, " blocks, feature layer ", config.feature_layer);
  for (int64_t i = 0; i < config.depth; ++i) {
    blocks.emplace_back(config.width, config.heads, config.mlp_ratio, 0, options);
    blocks.back().attn.causal = true;
  }
}

// Columns begin..end-1. codes: [B, L] i64 -> [B, end - begin]
static Tensor columns(const Tensor& codes, int64_t begin, int64_t end) {
  const int64_t B = codes.dim(0), L = codes.dim(1);
  const std::vector<int64_t> all = to_vector<int64_t>(codes);
  std::vector<int64_t> some;
  some.reserve(static_cast<size_t>(B * (end - begin)));
  for (int64_t b = 0; b < B; ++b) some.insert(some.end(), &all[b * L] + begin, &all[b * L] + end);
  return to(from_vector(some, {B, end - begin}), codes.options());
}

// [start, codes 0..L-2] with positions -> [B, L, D]
Var CausalTransformer::embed(const Tensor& codes) const {
  const int64_t L = config.tokens;
  check(codes.rank() == 2 && codes.dim(1) == L, "causal transformer: codes must be [B, ", L, "], found ",
        codes.shape());
  return concat({expand(start_token, 0, codes.dim(0)), token_emb(columns(codes, 0, L - 1))}, 1) + pos_embed;
}

Var CausalTransformer::forward(const Tensor& codes, const Mode& mode) const {
  Var x = dropout(embed(codes), config.dropout, mode);
  for (const Block& block : blocks) x = block(x, mode);
  return head(norm(x));
}

Var CausalTransformer::loss(const Var& logits, const Tensor& codes) const {
  return cross_entropy(logits, codes, Tensor(), 0);
}

Var CausalTransformer::read(const Tensor& codes, int64_t layers, const Mode& mode) const {
  Var x = dropout(embed(codes), config.dropout, mode);
  for (size_t i = 0; i < static_cast<size_t>(layers); ++i) x = blocks[i](x, mode);
  return concat({slice(x, 1, 1, config.tokens), slice(x, 1, config.tokens - 1, config.tokens)}, 1);
}

Tensor CausalTransformer::features(const Tensor& codes) const {
  const NoGrad no_grad;
  const auto layer = static_cast<size_t>(config.layer());
  const Var x = read(codes, config.layer());
  return (layer < blocks.size() ? blocks[layer].norm1(x) : norm(x)).value();
}

Tensor CausalTransformer::next_logits(const Tensor& codes, int64_t B, std::vector<KeyValues>& past) const {
  const NoGrad no_grad;
  if (past.empty()) past.resize(blocks.size());
  const int64_t place = past.front().places;
  check(place < config.tokens && codes.defined() == (place > 0), "causal transformer: place ", place, " of ",
        config.tokens, codes.defined() ? " cannot be read" : " needs the code before it");
  const Var token = place == 0 ? expand(start_token, 0, B) : token_emb(codes.reshape({B, 1}));
  Var x = token + slice(pos_embed, 1, place, place + 1);
  for (size_t i = 0; i < blocks.size(); ++i) x = blocks[i].next(x, past[i]);
  return head(norm(x)).value().reshape({B, config.vocabulary});
}

Tensor sample_codes(const CausalTransformer& model, int64_t B, const TokenChoice& choice, Rng& rng,
                    const Tensor& prefix) {
  const NoGrad no_grad;
  const int64_t L = model.config.tokens, given = prefix.defined() ? prefix.dim(1) : 0;
  check(given < L && (given == 0 || prefix.dim(0) == B), "sample_codes: prefix must be [", B, ", P] with P < ", L);
  std::vector<KeyValues> past;
  std::vector<int64_t> codes(static_cast<size_t>(B * L));
  Tensor latest;
  for (int64_t place = 0; place < L; ++place) {
    const Tensor logits = model.next_logits(latest, B, past);
    latest = place < given ? columns(prefix, place, place + 1).reshape({B}) : choose_tokens(logits, choice, rng);
    const std::vector<int64_t> drawn = to_vector<int64_t>(latest);
    for (int64_t b = 0; b < B; ++b) codes[static_cast<size_t>(b * L + place)] = drawn[static_cast<size_t>(b)];
  }
  return to(from_vector(codes, {B, L}), latest.options());
}

}  // namespace addp
