// Parity of the method's models: tokenizer, token predictor, ADDP's training step, sampler, mask ratios.
#include <algorithm>

#include "addp/addp.h"
#include "addp/masking.h"
#include "addp/objective.h"
#include "addp/sampler.h"
#include "addp/token_predictor.h"
#include "autograd/ops.h"
#include "examples/parity.h"
#include "nn/vqgan.h"

namespace addp::parity {
namespace {

Vqgan load_vqgan(Golden& golden, Options options) {
  Vqgan vqgan(golden.config("vqgan_weights").vqgan, options);
  golden.load(vqgan, "vqgan_weights");
  return vqgan;
}

TokenPredictor load_predictor(Golden& golden, Options options) {
  TokenPredictor predictor(golden.config("mage_weights"), options);
  golden.load(predictor, "mage_weights");
  return predictor;
}

Addp load_addp(Golden& golden, Options options) {
  Addp model(golden.config("addp_weights"), options);
  golden.load(model, "addp_weights");
  return model;
}

// Images mirrored left to right.
Tensor mirrored(const Tensor& image) {
  const int64_t width = image.dim(-1), rows = image.numel() / width;
  std::vector<double> values = to_vector<double>(image);
  for (int64_t r = 0; r < rows; ++r) std::reverse(values.begin() + r * width, values.begin() + (r + 1) * width);
  return to(from_vector(values, image.shape()), image.options());
}

}  // namespace

Tensor to_image_layout(const Tensor& x, int64_t grid) {
  const NoGrad no_grad;
  return permute(reshape(Var(x), {x.dim(0), grid, grid, x.dim(2)}), {0, 3, 1, 2}).value();
}

// train_loss, by the metadata: mean((rec-t)^2) + mean|rec-t| + codebook_loss, t = x0 mirrored left to right.
void check_vqgan(Golden& golden, Report& report, Options options) {
  const std::string file = "vqgan_expected";
  Vqgan vqgan = load_vqgan(golden, options);
  const Tensor x0 = golden.input(file, "x0", options);
  const Var image(x0, true), target(mirrored(x0));

  const Var h = vqgan.encode(image);
  const Quantized q = vqgan.quantize(h);
  const Var decoded = vqgan.decode(q.z_q);
  // One of the 6144 differences is 5e-7, less than float32's rounding of `decoded`: which sign it has is 1e-2 of all
  // gradients. So float32 has the loss at the reference's reconstruction; ours is compared.
  const bool single = options.dtype == DType::f32;
  const Var rec = single ? straight_through(decoded, golden.input(file, "decoded", options)) : decoded;
  const Var loss = mean(square(rec - target)) + mean(abs(rec - target)) + q.codebook_loss;
  backward(loss);

  report.compare(file, "h", h.value());
  report.compare_exactly(file, "indices", q.codes);
  report.compare(file, "z_q", q.z_q.value());
  if (single) report.note("vqgan_expected in f32: the loss at the reference's reconstruction (see check_vqgan)");
  report.compare(file, "decoded", decoded.value());
  report.compare(file, "codebook_loss", q.codebook_loss.value());
  report.compare(file, "train_loss", loss.value());
  report.compare(file, "grad.x0", image.grad());
  report.compare_gradients(file, parameters(vqgan));
}

void check_predictor(Golden& golden, Report& report, Options options) {
  const std::string file = "mage_expected";
  TokenPredictor predictor = load_predictor(golden, options);
  const Tensor codes = golden.input(file, "indices", options);
  const MageMasks masks = {golden.input(file, "mask_all", options), golden.input(file, "mask_dropped", options)};
  const auto learn = [&](const TokenPredictor::Result& result) {
    for (NamedVar& p : parameters(predictor)) p.var.clear_grad();
    backward(result.loss);
    report.compare(file, "loss", result.loss.value());
    report.compare_gradients(file, parameters(predictor));
    return result;
  };
  const TokenPredictor::Result all =
      learn(predictor.forward(codes, place(masks.mask_all, masks.mask_dropped, options)));
  report.compare(file, "latent", all.latent.value());
  report.compare(file, "logits", all.logits.value());
  // As it is trained: only what the loss depends on.
  const TokenPredictor::Result needed = learn(predictor.forward(codes, masks));
  report.compare_rows(file, "logits", needed.logits.value(), unreliable_rows(masks.mask_all));
}

void check_addp(Golden& golden, Report& report, Options options) {
  const std::string file = "addp_expected";
  const Vqgan vqgan = load_vqgan(golden, options);
  const TokenPredictor predictor = load_predictor(golden, options);
  Addp model = load_addp(golden, options);
  const int64_t grid = model.config.grid();

  report.compare_exactly(file, "indices", vqgan.encode_codes(Var(golden.input(file, "x0", options))));
  const NestedMasks masks = {golden.input(file, "mask_t", options), golden.input(file, "mask_t_next", options)};
  const Tensor codes = golden.input(file, "indices", options);
  const StepResult step = training_step(model, vqgan, predictor, codes, masks);
  backward(step.loss);

  // The reference computes all places, a step only those that something reads.
  {
    const NoGrad no_grad;
    const auto predict_all = [&](const Tensor& mask) {
      const PlacedMasks all = place(mask, zeros_like(mask), options);
      const Var logits = predictor.forward_decoder(predictor.forward_encoder(codes, all), all);
      return softmax(slice(slice(logits, 1, 1, logits.dim(1)), 2, 0, model.config.codes())).value();
    };
    const Tensor unreliable = unreliable_embedding(vqgan, predict_all(masks.mask_t_next), true);
    report.compare(file, "z_t_pred", to_image_layout(unreliable, grid));
    report.compare(file, "target_prob", to_image_layout(predict_all(masks.mask_t), grid));
    const Var latent = model.encoder.forward(Var(step.diffused.noisy_image));
    report.compare(file, "e_t", latent.value());
    report.compare(file, "logits", model.decoder.forward(latent, codes, masks.mask_t).value());
  }
  report.compare_rows(file, "e_t", step.latent.value(), reliable_rows(masks.mask_t));
  report.compare_rows(file, "logits", step.logits.value(), unreliable_rows(masks.mask_t));
  report.compare(file, "z_t", to_image_layout(step.diffused.embeddings, grid));
  report.compare(file, "x_t", step.diffused.noisy_image);
  report.compare(file, "encoder_tokens", step.encoder_tokens.value());
  report.compare(file, "loss", step.loss.value());
  report.compare_gradients(file, parameters(model));
}

// The alternation with the reference's random numbers; every step starts from this library's own last one.
void check_sampler(Golden& golden, Report& report, Options options) {
  const std::string file = "sampler_expected";
  const Vqgan vqgan = load_vqgan(golden, options);
  const Addp model = load_addp(golden, options);
  SamplerConfig config = model.config.sampler;
  config.steps = golden.integer(file, "steps");
  config.temperature = golden.number_after(file, "choice_temperature", "");
  config.schedule = golden.text(file, "schedule").substr(0, golden.text(file, "schedule").find(';'));
  config.final_decode = false;

  SamplerState state;
  for (int64_t s = 0; s < config.steps; ++s) {
    const std::string step = "step" + std::to_string(s) + ".";
    const StepNoise noise = {golden.input(file, step + "uniform", options),
                             golden.input(file, step + "gumbel", options)};
    if (s == 0) state = start_sampling(noise.uniform.dim(0), noise.uniform.dim(1), options);
    report.compare_exactly(file, step + "mask_in", state.mask);
    state = sampler_step(model, vqgan, state, noise, config);
    report.compare_exactly(file, step + "tokens", state.codes);
    report.compare_exactly(file, step + "mask_out", state.mask);
    if (golden.has(file, step + "x")) report.compare(file, step + "x", state.image);
  }
}

void check_mask_ratios(Golden& golden, Report& report, Options) {
  const std::string file = "mask_ratios", key = "source";
  MaskingConfig config;
  config.min_ratio = golden.number_after(file, key, "mask_ratio_min ");
  config.max_ratio = golden.number_after(file, key, "max ");
  config.mean = golden.number_after(file, key, "mu ");
  config.deviation = golden.number_after(file, key, "std ");
  // "..., std 0.25, 100 cosine steps": the number of steps is what follows the last comma.
  const std::string source = golden.text(file, key);
  config.steps = static_cast<int64_t>(golden.number_after(file, key, source.substr(0, source.rfind(',') + 1)));
  const MaskRatios ratios = mask_ratios(config);
  const int64_t n = static_cast<int64_t>(ratios.ratio.size());
  report.compare(file, "ratios", from_vector(ratios.ratio, {n}));
  report.compare(file, "probs", from_vector(ratios.probability, {n}));
}

}  // namespace addp::parity
