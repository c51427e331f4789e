#include "addp/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "addp/objective.h"
#include "autograd/codes.h"
#include "autograd/ops.h"

namespace addp {

StepNoise draw_step_noise(int64_t B, int64_t L, Rng& rng, Options options) {
  StepNoise noise;
  noise.uniform = rng.uniform({B, L}, options);
  std::vector<double> gumbel(static_cast<size_t>(B * L));
  for (double& g : gumbel) g = rng.gumbel();
  noise.gumbel = to(from_vector(gumbel, {B, L}), options);
  return noise;
}

int64_t masked_after(int64_t step, int64_t unknown, const SamplerConfig& config) {
  const double done = static_cast<double>(step + 1) / static_cast<double>(config.steps);
  check_as(ErrorKind::usage, config.schedule == "cosine" || config.schedule == "linear",
           "sampler.schedule: expected cosine or linear, found ", config.schedule);
  const double ratio = config.schedule == "cosine" ? std::cos(std::numbers::pi / 2 * done) : 1 - done;
  return std::max<int64_t>(1, masked_count(unknown, ratio));
}

SamplerState start_sampling(int64_t B, int64_t L, Options options) {
  SamplerState state;
  state.codes = zeros({B, L}, {DType::i64, options.device});
  state.mask = ones({B, L}, options);
  state.unknown = L;
  return state;
}

SamplerState start_inpainting(const Vqgan& vqgan, const Tensor& codes, const Tensor& mask) {
  const NoGrad no_grad;
  check(codes.shape() == mask.shape(), "start_inpainting: codes and mask must have the same shape [B, L], found ",
        codes.shape(), " and ", mask.shape());
  SamplerState state;
  state.codes = codes;
  state.mask = mask;
  state.unknown = ones_per_row(mask);
  check(state.unknown > 0, "start_inpainting: no place is masked, there is nothing to generate");
  if (state.unknown == mask.dim(1)) return state;
  const Var mean_code = mean_axis(vqgan.codebook(), 0);  // [Dz]
  state.image = decode_embeddings(vqgan, select_rows(mask, mean_code, vqgan.embed_codes(codes)).value());
  return state;
}

// p(code) of every place. probs: [B, L, K], codes: [B, L].
static std::vector<double> probability_of(const Tensor& probs, const std::vector<int64_t>& codes) {
  const int64_t K = probs.dim(-1);
  std::vector<int64_t> index(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) index[i] = static_cast<int64_t>(i) * K + codes[i];
  const Tensor flat_index = to(from_vector(index, {static_cast<int64_t>(index.size())}), {DType::i64, probs.device()});
  return to_vector<double>(gather_rows(Var(probs.reshape({-1, 1})), flat_index).value());
}

SamplerState update_tokens(const SamplerState& state, const Tensor& probs, const StepNoise& noise,
                           const SamplerConfig& config) {
  const NoGrad no_grad;
  const int64_t B = state.codes.dim(0), L = state.codes.dim(1);
  const Tensor choices = config.top_p < 1 ? top_p(probs, config.top_p) : probs;
  const std::vector<double> masked = to_vector<double>(state.mask), gumbel = to_vector<double>(noise.gumbel);
  const std::vector<int64_t> drawn = to_vector<int64_t>(sample_categorical(choices, noise.uniform));
  const std::vector<double> probability = probability_of(choices, drawn);
  const double left = 1 - static_cast<double>(state.step + 1) / static_cast<double>(config.steps);
  const double temperature = config.temperature * (config.anneal ? left : 1);

  // Known codes keep their value and get all confidence; of the others the least confident stay masked.
  std::vector<int64_t> codes = to_vector<int64_t>(state.codes);
  std::vector<double> confidence(codes.size(), std::numeric_limits<double>::infinity());
  for (size_t i = 0; i < codes.size(); ++i) {
    if (masked[i] == 0) continue;
    codes[i] = drawn[i];
    confidence[i] = std::log(probability[i]) + temperature * gumbel[i];
  }
  const std::vector<int64_t> count(static_cast<size_t>(B), masked_after(state.step, state.unknown, config));

  SamplerState next = state;
  next.step = state.step + 1;
  next.codes = to(from_vector(codes, {B, L}), state.codes.options());
  next.mask = to(smallest_mask(from_vector(confidence, {B, L}), count), state.mask.options());
  return next;
}

SamplerState sampler_step(const Addp& model, const Vqgan& vqgan, const SamplerState& state, const StepNoise& noise,
                          const SamplerConfig& config) {
  const NoGrad no_grad;
  const Tensor mask = to(state.mask, {state.mask.dtype(), Device::cpu});
  Var latent;
  if (state.image.defined()) latent = model.encoder.forward(Var(state.image), {}, reliable_rows(mask));
  const bool with_tokens = model.config.objective.reliable_tokens;
  const Var logits = model.decoder.forward_unreliable(latent, state.codes, mask, with_tokens);
  const Tensor probs = spread(softmax(slice(logits, 2, 0, model.config.codes())), mask).value();  // [B, L, K]

  SamplerState next = update_tokens(state, probs, noise, config);
  const Tensor unreliable = unreliable_embedding(vqgan, probs, model.config.objective.soft_unreliable);
  next.image = decode_embeddings(vqgan, mix_embeddings(vqgan, next.codes, unreliable, next.mask));
  return next;
}

static Tensor clamped(const Tensor& image) { return clamp(Var(image), 0, 1).value(); }

Samples sample(const Addp& model, const Vqgan& vqgan, SamplerState start, const SamplerConfig& config, Rng& rng,
               const StepCallback& callback) {
  const NoGrad no_grad;
  SamplerState state = std::move(start);
  while (state.step < config.steps) {
    const StepNoise noise = draw_step_noise(state.codes.dim(0), state.codes.dim(1), rng, state.mask.options());
    state = sampler_step(model, vqgan, state, noise, config);
    if (callback) callback(state);
  }
  return {state.codes, clamped(config.final_decode ? decode_codes(vqgan, state.codes) : state.image)};
}

Samples sample_predictor(const TokenPredictor& predictor, const Vqgan& vqgan, SamplerState start,
                         const SamplerConfig& config, Rng& rng, const StepCallback& callback) {
  const NoGrad no_grad;
  SamplerState state = std::move(start);
  while (state.step < config.steps) {
    const StepNoise noise = draw_step_noise(state.codes.dim(0), state.codes.dim(1), rng, state.mask.options());
    state = update_tokens(state, predictor.predict(state.codes, state.mask), noise, config);
    if (callback) callback(state);
  }
  return {state.codes, clamped(decode_codes(vqgan, state.codes))};
}

}  // namespace addp
