#include "addp/token_predictor.h"

#include "addp/blocks.h"
#include "autograd/ops.h"
#include "nn/init.h"

namespace addp {

TokenEmbedding::TokenEmbedding(const Config& config, Options options)
    : word_embeddings(parameter({config.vocabulary, config.predictor.width}, options)),
      position_embeddings(parameter({config.position_rows, config.predictor.width}, options)),
      layer_norm(config.predictor.width, 1e-6, options),
      dropout_rate(config.predictor.dropout) {
  if (!config.unused_parameters) return;
  std::vector<int64_t> ids(static_cast<size_t>(config.position_rows));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i);
  position_ids = Var(to(from_vector(ids, {1, config.position_rows}), {DType::i64, options.device}));
}

Var TokenEmbedding::operator()(const Tensor& ids, Mode mode) const {
  const Var words = gather_rows(word_embeddings, ids);
  const Var positions = slice(position_embeddings, 0, 0, ids.dim(1));
  return dropout(layer_norm(words + positions), dropout_rate, mode);
}

TokenPredictor::TokenPredictor(const Config& config, Options options)
    : config(config),
      token_emb(config, options),
      blocks(make_blocks(config.predictor, config.predictor.depth, config.predictor.heads, options)),
      norm(config.predictor.width, 1e-6, options),
      decoder_embed(config.predictor.width, config.predictor.width, true, options),
      decoder_pos_embed_learned(parameter({1, 1 + config.tokens(), config.predictor.width}, options)),
      decoder_blocks(
          make_blocks(config.predictor, config.predictor.decoder_depth, config.predictor.decoder_heads, options)),
      decoder_norm(config.predictor.width, 1e-6, options),
      mlm_layer(config.predictor.width, config.vocabulary, options) {
  if (!config.unused_parameters) return;
  const int64_t D = config.predictor.width, P = config.patch_size;
  for (const char* name : {"cls_token", "mask_token"}) unused.emplace_back(name, parameter({1, 1, D}, options));
  for (const char* name : {"pos_embed", "decoder_pos_embed"})
    unused.emplace_back(name, parameter({1, 1 + config.tokens(), D}, options));
  unused.emplace_back("patch_embed.proj.weight", parameter({D, 3, P, P}, options));
  unused.emplace_back("patch_embed.proj.bias", parameter({D}, options));
  unused.emplace_back("decoder_pred.weight", parameter({P * P * 3, D}, options));
  unused.emplace_back("decoder_pred.bias", parameter({P * P * 3}, options));
}

// [class id, codes], the mask id where mask is 1. codes, mask: [B, L] -> [B, 1 + L]
static Tensor input_ids(const Tensor& codes, const Tensor& mask, const Config& config) {
  const NoGrad no_grad;
  const int64_t B = codes.dim(0), L = codes.dim(1);
  // Made where the codes are, so that nothing waits for them; whole numbers up to 2^24 are exact in float.
  const Options on{mask.dtype(), codes.device()};
  const Var mask_id(full({1}, static_cast<double>(config.mask_id), on));
  const Var class_ids(full({B, 1}, static_cast<double>(config.class_id), on));
  const Var shown = select_rows(to(mask, on), mask_id, Var(to(codes, on).reshape({B, L, 1})));
  return to(concat({class_ids, reshape(shown, {B, L})}, 1).value(), {DType::i64, on.device});
}

Var TokenPredictor::forward_encoder(const Tensor& codes, const Tensor& mask_all, const Tensor& mask_dropped,
                                    Mode mode) const {
  check(codes.shape() == mask_all.shape() && codes.shape() == mask_dropped.shape() && codes.dim(-1) == config.tokens(),
        "token predictor: codes and masks must be [B, ", config.tokens(), "], found ", codes.shape(), ", ",
        mask_all.shape(), ", ", mask_dropped.shape());
  return forward_encoder(codes, place(mask_all, mask_dropped, decoder_pos_embed_learned.options()), mode);
}

Var TokenPredictor::forward_encoder(const Tensor& codes, const PlacedMasks& masks, Mode mode) const {
  const Var x = gather_tokens(token_emb(input_ids(codes, masks.mask_all, config), mode), masks.kept);
  return norm(run_blocks(blocks, x, mode, masks.read));
}

PlacedMasks place(const Tensor& mask_all, const Tensor& mask_dropped, Options options) {
  const auto index = [&](const Tensor& rows) { return to(rows, {DType::i64, options.device}); };
  PlacedMasks masks;
  masks.mask_all = to(mask_all, options);
  masks.kept = index(reliable_rows(mask_dropped));
  masks.restore = index(rows_of_places(mask_all, mask_dropped));
  return masks;
}

PlacedMasks place_needed(const Tensor& mask_all, const Tensor& mask_dropped, Options options) {
  const auto index = [&](const Tensor& rows) { return to(rows, {DType::i64, options.device}); };
  PlacedMasks masks = place(mask_all, mask_dropped, options);
  // Of the tokens that are kept some are masked all the same.
  const Tensor kept_tokens = places(mask_dropped, 0);
  const Tensor masked = gather_tokens(Var(mask_all.reshape({mask_all.dim(0), -1, 1})), kept_tokens).value();
  masks.read = index(reliable_rows(masked.reshape(kept_tokens.shape())));
  masks.restore = index(rows_of_places(mask_all, mask_all));
  masks.asked = index(unreliable_rows(mask_all));
  return masks;
}

Var TokenPredictor::forward_decoder(const Var& latent, const PlacedMasks& masks, Mode mode) const {
  const Var x = gather_tokens(decoder_embed(latent), masks.restore) + decoder_pos_embed_learned;
  return mlm_layer(decoder_norm(run_blocks(decoder_blocks, x, mode, masks.asked)), token_emb.word_embeddings);
}

Var TokenPredictor::forward_loss(const Var& logits, const Tensor& codes, const PlacedMasks& masks) const {
  const double smoothing = config.objective.label_smoothing;
  if (!masks.asked.defined()) {
    return cross_entropy(slice(logits, 1, 1, 1 + config.tokens()), codes, masks.mask_all, smoothing);
  }
  return cross_entropy(logits, at_rows(codes, masks.asked), ones(masks.asked.shape(), masks.mask_all.options()),
                       smoothing);
}

TokenPredictor::Result TokenPredictor::forward(const Tensor& codes, const MageMasks& masks, Mode mode) const {
  const Options on = decoder_pos_embed_learned.options();
  return forward(codes, place_needed(masks.mask_all, masks.mask_dropped, on), mode);
}

TokenPredictor::Result TokenPredictor::forward(const Tensor& codes, const PlacedMasks& masks, Mode mode) const {
  Result result;
  result.latent = forward_encoder(codes, masks, mode);
  result.logits = forward_decoder(result.latent, masks, mode);
  result.loss = forward_loss(result.logits, codes, masks);
  return result;
}

TokenPredictor::Result TokenPredictor::forward(const Tensor& codes, Rng& rng, Mode mode) const {
  const Options options = decoder_pos_embed_learned.options();
  return forward(codes, draw_mage_masks(codes.dim(0), codes.dim(1), config.masking, rng, options), mode);
}

Tensor TokenPredictor::predict(const Tensor& codes, const Tensor& mask) const {
  const NoGrad no_grad;
  const Tensor on_host = to(mask, {mask.dtype(), Device::cpu});
  const PlacedMasks masks = place_needed(on_host, zeros_like(on_host), decoder_pos_embed_learned.options());
  const Var logits = forward_decoder(forward_encoder(codes, masks), masks);
  return spread(softmax(slice(logits, 2, 0, config.codes())), on_host).value();
}

void initialize(TokenPredictor& predictor, const Rng& rng) { init_transformer(predictor, rng); }

}  // namespace addp
