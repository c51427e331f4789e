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

StepResult denoise(const Addp& model, const Tensor& codes, const NestedMasks& masks, const Diffused& diffused,
                   const ObjectiveConfig& config, Mode mode) {
  StepResult result{codes, masks, diffused, {}, {}, {}, {}};
  const PixelEncoder& encoder = model.encoder;
  const Tensor& mask = masks.mask_t;
  const Options on = model.encoder.cls_token.options();
  result.encoder_tokens = encoder.encoder_tokens(Var(diffused.noisy_image), mode);
  result.latent = encoder.norm(encoder.run_blocks(result.encoder_tokens, mode, reliable_rows(mask)));
  result.logits = model.decoder.forward_unreliable(result.latent, codes, mask, config.reliable_tokens, mode);
  const Tensor unreliable = places(mask, 1);
  const Var targets = gather_tokens(Var(diffused.target_probs), unreliable);
  result.loss =
      soft_cross_entropy(result.logits, targets.value(), ones(unreliable.shape(), on), config.label_smoothing);
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

double masked_accuracy(const Var& logits, const Tensor& codes, const Tensor& mask) {
  const std::vector<int64_t> found = to_vector<int64_t>(argmax(logits.value()));
  const std::vector<int64_t> truth = to_vector<int64_t>(at_rows(codes, unreliable_rows(mask)));
  check(found.size() == truth.size(), "masked_accuracy: ", truth.size(), " places are masked, but logits are ",
        logits.shape());
  int64_t right = 0;
  for (size_t i = 0; i < truth.size(); ++i) right += found[i] == truth[i];
  return truth.empty() ? 0 : static_cast<double>(right) / static_cast<double>(truth.size());
}

}  // namespace addp
