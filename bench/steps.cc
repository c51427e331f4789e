// Whole steps of the method: what `addp train`, `sample` and `probe` do, on given inputs.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

#include "addp/addp.h"
#include "addp/objective.h"
#include "addp/recognition.h"
#include "addp/sampler.h"
#include "autograd/codes.h"
#include "autograd/ops.h"
#include "bench/cases.h"
#include "nn/discriminator.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "nn/state_dict.h"
#include "tensor/safetensors.h"

namespace addp {
namespace {

constexpr double kRate = 1e-4;
constexpr int64_t kProbeImages = 10000, kProbeSteps = 100, kProbeBatch = 256;

// What a step works on: those networks of a preset that it needs, and its inputs. Frozen networks record nothing.
struct Workshop {
  Workshop(const std::string& step, const Config& sizes, int64_t batch) : config(sizes), B(batch) {
    config.predictor.dropout = config.model.dropout = 0;
    config.sampler.top_p = 1;
    const Rng rng(1);
    vqgan.emplace(config.vqgan, Options());
    if (step == "predictor" || step == "transformer" || step == "addp") predictor.emplace(config, Options());
    if (step == "addp" || step == "sample") model.emplace(config, Options());
    initialize(*vqgan, rng.fork("vqgan"));
    init_normal(vqgan->quantizer.embedding.weight, 0, 1, rng.fork("codebook"));
    if (predictor) initialize(*predictor, rng.fork("predictor"));
    if (model) initialize(*model, rng.fork("addp"));
    const int64_t L = config.tokens(), S = config.image_size;
    image = affine(Var(bench_input({B, 3, S, S}, 3)), 0.5, 0.5).value();
    Rng draws = rng.fork("masks");
    nested = draw_nested_masks(B, L, config.masking, draws, {});
    mage = draw_mage_masks(B, L, config.masking, draws, {});
    for (int64_t s = 0; s < config.sampler.steps; ++s) noise.push_back(draw_step_noise(B, L, draws, {}));
  }

  // Optimizer of the official recipe.
  template <class Module>
  static std::unique_ptr<AdamW> adamw(Module& module) {
    return std::make_unique<AdamW>(parameters(module), AdamwConfig{.clip_norm = 3.0});
  }

  void write(const std::string& folder) {
    std::filesystem::create_directories(folder);
    write_safetensors(folder + "/vqgan.safetensors", state_dict(*vqgan));
    if (predictor) write_safetensors(folder + "/predictor.safetensors", state_dict(*predictor));
    if (model) write_safetensors(folder + "/addp.safetensors", state_dict(*model));
    StateDict inputs = {{"image", image},
                        {"mask_t", nested.mask_t},
                        {"mask_t_next", nested.mask_t_next},
                        {"mask_all", mage.mask_all},
                        {"mask_dropped", mage.mask_dropped}};
    for (size_t s = 0; s < noise.size(); ++s) {
      inputs["uniform" + std::to_string(s)] = noise[s].uniform;
      inputs["gumbel" + std::to_string(s)] = noise[s].gumbel;
    }
    write_safetensors(folder + "/inputs.safetensors", inputs);
    std::ofstream(folder + "/config.txt") << to_text(config);
  }

  Config config;
  int64_t B;
  std::optional<Vqgan> vqgan;
  std::optional<TokenPredictor> predictor;
  std::optional<Addp> model;
  Tensor image;
  NestedMasks nested;
  MageMasks mage;
  std::vector<StepNoise> noise;
};

using Step = std::function<double()>;

// |x - rec| + codebook loss, the codebook by gradient; gan: also the hinge loss with the adaptive weight, and the
// discriminator's step.
Step vqgan_step(const std::shared_ptr<Workshop>& w, bool gan, const std::string& folder) {
  const std::shared_ptr<AdamW> optimizer = Workshop::adamw(*w->vqgan);
  std::shared_ptr<Discriminator> critic;
  std::shared_ptr<AdamW> critic_optimizer;
  if (gan) {
    critic = std::make_shared<Discriminator>(
        DiscriminatorConfig{3, w->config.tokenizer.ndf, w->config.tokenizer.discriminator_layers}, Options());
    initialize(*critic, Rng(2));
    critic_optimizer = Workshop::adamw(*critic);
    if (!folder.empty()) write_safetensors(folder + "/discriminator.safetensors", state_dict(*critic));
  }
  return [=] {
    const Var image(w->image);
    const Quantized quantized = w->vqgan->quantize(w->vqgan->encode(image));
    const Var reconstruction = w->vqgan->decode(quantized.z_q);
    const Var l1 = mean(abs(reconstruction - image));
    Var loss = l1 + quantized.codebook_loss;
    const Mode train{true, nullptr};
    if (gan) {
      set_trainable(*critic, false);
      const Var g_loss = hinge_generator_loss((*critic)(reconstruction, train));
      const double weight = adaptive_gan_weight(l1, g_loss, w->vqgan->decoder.conv_out.weight);
      loss = loss + weight * g_loss;
    }
    const double value = loss.item();
    backward(loss);
    optimizer->step(kRate);
    if (gan) {
      set_trainable(*critic, true);
      const Var real = (*critic)(image, train);
      backward(hinge_discriminator_loss(real, (*critic)(detach(reconstruction), train)));
      critic_optimizer->step(kRate);
    }
    return value;
  };
}

// Images to codes, then MAGE's training step.
Step predictor_step(const std::shared_ptr<Workshop>& w) {
  const std::shared_ptr<AdamW> optimizer = Workshop::adamw(*w->predictor);
  return [=] {
    const Tensor codes = w->vqgan->encode_codes(Var(w->image));
    const Var loss = w->predictor->forward(codes, w->mage).loss;
    const double value = loss.item();
    backward(loss);
    optimizer->step(kRate);
    return value;
  };
}

// MAGE's training step on given codes: the transformer alone.
Step transformer_step(const std::shared_ptr<Workshop>& w) {
  const std::shared_ptr<AdamW> optimizer = Workshop::adamw(*w->predictor);
  std::vector<int64_t> codes(static_cast<size_t>(w->B * w->config.tokens()));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<int64_t>(i) * 7 % w->config.codes();
  return [=, codes = from_vector(codes, {w->B, w->config.tokens()})] {
    const Var loss = w->predictor->forward(codes, w->mage).loss;
    const double value = loss.item();
    backward(loss);
    optimizer->step(kRate);
    return value;
  };
}

Step addp_step(const std::shared_ptr<Workshop>& w) {
  const std::shared_ptr<AdamW> optimizer = Workshop::adamw(*w->model);
  return [=] {
    const Tensor codes = w->vqgan->encode_codes(Var(w->image));
    const Var loss = training_step(*w->model, *w->vqgan, *w->predictor, codes, w->nested).loss;
    const double value = loss.item();
    backward(loss);
    optimizer->step(kRate);
    return value;
  };
}

// A batch of new images. The value is their mean brightness.
Step sample_step(const std::shared_ptr<Workshop>& w) {
  return [=] {
    const NoGrad no_grad;
    SamplerState state = start_sampling(w->B, w->config.tokens(), {});
    for (const StepNoise& noise : w->noise) state = sampler_step(*w->model, *w->vqgan, state, noise, w->config.sampler);
    return mean(Var(decode_codes(*w->vqgan, state.codes))).item();
  };
}

Step probe_step(const std::shared_ptr<Workshop>& w) {
  const int64_t width = 16 * w->config.model.width;
  const Tensor features = bench_input({kProbeImages, width}, 1);
  std::vector<int64_t> labels(kProbeImages);
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<int64_t>(i) % 10;
  StageConfig recipe;
  recipe.steps = kProbeSteps, recipe.batch = kProbeBatch, recipe.warmup_steps = 10, recipe.base_lr = 1;
  return [=, labels = from_vector(labels, {kProbeImages})] {
    train_linear_probe(features, labels, 10, recipe, Rng(1));
    return 0.0;  // batches are drawn by each side's own generator: nothing to compare
  };
}

template <class Module>
int64_t bytes_of(std::optional<Module>& module) {
  int64_t sum = 0;
  for (const auto& [name, tensor] : module ? state_dict(*module) : StateDict()) sum += tensor.bytes();
  return sum;
}

}  // namespace

Config step_config(const std::string& preset_name, const std::vector<std::string>& assignments) {
  Config config = preset(preset_name);
  for (const std::string& text : assignments) {
    const size_t equals = text.find('=');
    check_as(ErrorKind::usage, equals != std::string::npos, "bench: expected name=value, found '", text, "'");
    set_field(config, text.substr(0, equals), text.substr(equals + 1));
  }
  if (!config.unused_parameters) config.use_compact_ids();
  config.validate();
  return config;
}

BenchCase make_step_case(const std::string& step, const Config& config, int64_t batch, const std::string& folder) {
  const auto w = std::make_shared<Workshop>(step, config, batch);
  if (!folder.empty()) w->write(folder);
  const int64_t vqgan = bytes_of(w->vqgan), predictor = bytes_of(w->predictor), model = bytes_of(w->model);
  BenchCase c;
  c.held.batch = w->image.bytes();
  if (step == "vqgan" || step == "vqgan_gan") {
    c.run = vqgan_step(w, step == "vqgan_gan", folder);
    c.held.weights = vqgan;
  } else {
    set_trainable(*w->vqgan, false);
    if (step == "addp") set_trainable(*w->predictor, false);
    c.held.weights = step == "addp" ? model : predictor;
    c.held.frozen = vqgan + predictor + model - c.held.weights;
    if (step == "predictor") c.run = predictor_step(w);
    else if (step == "transformer") c.run = transformer_step(w);
    else if (step == "addp") c.run = addp_step(w);
    else if (step == "sample") c.run = sample_step(w);
    else if (step == "probe") c.run = probe_step(w);
    else fail(ErrorKind::usage, "bench: unknown step '", step, "'");
  }
  c.held.optimizer = 2 * c.held.weights;  // two moments
  return c;
}

}  // namespace addp
