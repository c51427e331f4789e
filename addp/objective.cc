#include "addp/objective.h"

#include "autograd/codes.h"
#include "autograd/ops.h"

namespace addp {

Tensor mix_embeddings(const Vqgan& vqgan, const Tensor& codes, const Tensor& unreliable, const Tensor& mask) {
  const NoGrad no_grad;
  return select_rows(to(mask, unreliable.options()), Var(unreliable), vqgan.embed_codes(codes)).value();
}

Tensor decode_embeddings(const Vqgan& vqgan, const Tensor& embeddings) {
  const NoGrad no_grad;
  return vqgan.decode_tokens(Var(embeddings)).value();
}

Tensor decode_codes(const Vqgan& vqgan, const Tensor& codes) {
  const NoGrad no_grad;
  return vqgan.decode_tokens(vqgan.embed_codes(codes)).value();
}

// Sec. 3.2: q(z̄_t given z_t) becomes pixels through the mean of the codes' embeddings.
Tensor unreliable_embedding(const Vqgan& vqgan, const Tensor& probs, bool soft) {
  const NoGrad no_grad;
  const Var codebook = vqgan.codebook();
  if (!soft) return vqgan.embed_codes(argmax(probs)).value();
  return reshape(matmul(reshape(Var(probs), {-1, probs.dim(-1)}), codebook), {probs.dim(0), probs.dim(1), -1}).value();
}

// [B, L] codes -> [B, L, K], 1 at the code.
static Tensor one_hot(const Tensor& codes, int64_t K, Options options) {
  std::vector<double> identity(static_cast<size_t>(K * K));
  for (int64_t k = 0; k < K; ++k) identity[static_cast<size_t>(k * K + k)] = 1;
  return gather_rows(Var(to(from_vector(identity, {K, K}), options)), codes).value();
}

Diffused diffuse(const Vqgan& vqgan, const TokenPredictor& predictor, const Tensor& codes, const NestedMasks& masks,
                 const ObjectiveConfig& config) {
  const NoGrad no_grad;
  Diffused result;
  // Step 3: the unreliable tokens come from the noisier mask, as they will when sampling.
  const Tensor unreliable_probs = predictor.predict(codes, masks.mask_t_next);
  result.unreliable = unreliable_embedding(vqgan, unreliable_probs, config.soft_unreliable);
  result.embeddings = mix_embeddings(vqgan, codes, result.unreliable, masks.mask_t);
  result.noisy_image = decode_embeddings(vqgan, result.embeddings);
  // Step 4.
  result.target_probs = config.predicted_targets ? predictor.predict(codes, masks.mask_t)
                                                 : one_hot(codes, unreliable_probs.dim(-1), unreliable_probs.options());
  return result;
}

Var forward_loss(const Addp& model, const Var& logits, const Tensor& target_probs, const Tensor& mask_t,
                 double label_smoothing) {
  return soft_cross_entropy(model.decoder.place_logits(logits), target_probs, to(mask_t, logits.options()),
                            label_smoothing);
}

StepResult denoise(const Addp& model, const Tensor& codes, const NestedMasks& masks, const Diffused& diffused,
                   const ObjectiveConfig& config, Mode mode) {
  StepResult result{codes, masks, diffused, {}, {}, {}, {}};
  const PixelEncoder& encoder = model.encoder;
  result.encoder_tokens = encoder.encoder_tokens(Var(diffused.noisy_image), mode);
  result.latent = encoder.norm(encoder.run_blocks(result.encoder_tokens, mode));
  result.logits = model.decoder.forward(result.latent, codes, masks.mask_t, config.reliable_tokens, mode);
  result.loss = forward_loss(model, result.logits, diffused.target_probs, masks.mask_t, config.label_smoothing);
  return result;
}

StepResult training_step(const Addp& model, const Vqgan& vqgan, const TokenPredictor& predictor, const Tensor& codes,
                         const NestedMasks& masks, Mode mode) {
  const ObjectiveConfig& config = model.config.objective;
  return denoise(model, codes, masks, diffuse(vqgan, predictor, codes, masks, config), config, mode);
}

StepResult training_step(const Addp& model, const Vqgan& vqgan, const TokenPredictor& predictor, const Tensor& codes,
                         Rng& rng, Mode mode) {
  const Options options = model.encoder.cls_token.options();
  return training_step(model, vqgan, predictor, codes,
                       draw_nested_masks(codes.dim(0), codes.dim(1), model.config.masking, rng, options), mode);
}

double masked_accuracy(const Var& logits_at_places, const Tensor& codes, const Tensor& mask) {
  const std::vector<int64_t> found = to_vector<int64_t>(argmax(logits_at_places.value()));
  const std::vector<int64_t> truth = to_vector<int64_t>(codes);
  const std::vector<double> masked = to_vector<double>(mask);
  int64_t right = 0, all = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    if (masked[i] == 0) continue;
    ++all;
    right += found[i] == truth[i];
  }
  return all > 0 ? static_cast<double>(right) / static_cast<double>(all) : 0;
}

}  // namespace addp
