// The method: presets and their names, masks, every ablation switch, the objective's gradients, the sampler's promises.
// Numbers against the official implementation are checked by the parity tests.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <set>

#include "addp/addp.h"
#include "addp/objective.h"
#include "addp/recognition.h"
#include "addp/sampler.h"
#include "autograd/codes.h"
#include "autograd/ops.h"
#include "nn/init.h"
#include "tensor/allocator.h"
#include "tensor/safetensors.h"

namespace addp {
namespace {

constexpr Options kDouble = {DType::f64, Device::cpu};

// All frozen and trained models of the tiny preset, with random weights.
struct TinyModels {
  explicit TinyModels(Config config = preset("tiny"), Options options = kDouble)
      : config(config), vqgan(config.vqgan, options), predictor(config, options), model(config, options) {
    initialize(vqgan, Rng(1));
    initialize(predictor, Rng(2));
    initialize(model, Rng(3));
    // Larger embeddings than at the start of training, so that distributions are far from uniform.
    Rng rng(4);
    for (Var* table : {&predictor.token_emb.word_embeddings, &model.decoder.token_emb})
      copy_into(table->value(), rng.normal(table->shape(), options));
    set_trainable(vqgan, false);
    set_trainable(predictor, false);
  }

  Tensor random_codes(int64_t B, uint64_t seed) const {
    Rng rng(seed);
    std::vector<int64_t> codes(static_cast<size_t>(B * config.tokens()));
    for (int64_t& code : codes) code = rng.below(config.codes());
    return from_vector(codes, {B, config.tokens()});
  }
  NestedMasks random_masks(int64_t B, uint64_t seed) const {
    Rng rng(seed);
    return draw_nested_masks(B, config.tokens(), config.masking, rng, model.encoder.cls_token.options());
  }

  Config config;
  Vqgan vqgan;
  TokenPredictor predictor;
  Addp model;
};

// Smallest and largest row sum of a tensor's last axis.
std::pair<double, double> row_sums(const Tensor& x) {
  const std::vector<double> values = to_vector<double>(sum_axis(Var(to(x, kDouble)), x.rank() - 1).value());
  return {*std::min_element(values.begin(), values.end()), *std::max_element(values.begin(), values.end())};
}

}  // namespace

TEST_CASE("addp: mask ratios equal the official table") {
  const MaskRatios table = mask_ratios({});
  const TensorFile golden = read_safetensors("tests/golden/mask_ratios.safetensors");
  const std::vector<double> ratios = to_vector<double>(golden.tensors.at("ratios"));
  const std::vector<double> probs = to_vector<double>(golden.tensors.at("probs"));
  REQUIRE(table.ratio.size() == ratios.size());
  for (size_t i = 0; i < ratios.size(); ++i) {
    CHECK(table.ratio[i] == doctest::Approx(ratios[i]).epsilon(1e-14));
    CHECK(table.probability[i] == doctest::Approx(probs[i]).epsilon(1e-12));
  }
}

TEST_CASE("addp: masked counts round up") {
  CHECK(masked_count(64, 0.5) == 32);
  CHECK(masked_count(64, 0.5001) == 33);
  CHECK(masked_count(25, 0.5) == 13);
  CHECK(masked_count(64, 1.0) == 64);
  CHECK(masked_count(64, 0.0) == 0);
}

TEST_CASE("addp: training masks are nested and equally large in every image") {
  const MaskingConfig config;
  Rng rng(7);
  std::set<int64_t> counts;
  for (int i = 0; i < 50; ++i) {
    const NestedMasks masks = draw_nested_masks(3, 49, config, rng, {});
    const int64_t now = ones_per_row(masks.mask_t), next = ones_per_row(masks.mask_t_next);
    CHECK(now >= 25);
    CHECK(next >= now);
    const std::vector<float> a = to_vector<float>(masks.mask_t), b = to_vector<float>(masks.mask_t_next);
    for (size_t k = 0; k < a.size(); ++k) CHECK(a[k] <= b[k]);
    counts.insert(now);
  }
  CHECK(counts.size() > 5);
}

TEST_CASE("addp: MAGE masks drop exactly half and lie inside what is masked") {
  Rng rng(8);
  for (int i = 0; i < 20; ++i) {
    const MageMasks masks = draw_mage_masks(2, 25, {}, rng, {});
    CHECK(ones_per_row(masks.mask_dropped) == 13);
    CHECK(ones_per_row(masks.mask_all) >= 13);
    const std::vector<float> dropped = to_vector<float>(masks.mask_dropped), all = to_vector<float>(masks.mask_all);
    for (size_t k = 0; k < all.size(); ++k) CHECK(dropped[k] <= all[k]);
  }
}

TEST_CASE("addp: places lists positions in raster order") {
  const Tensor mask = from_vector(std::vector<float>{1, 0, 0, 1, 0, 1, 1, 0}, {2, 4});
  CHECK(to_vector<int64_t>(places(mask, 1)) == std::vector<int64_t>{0, 3, 1, 2});
  CHECK(to_vector<int64_t>(places(mask, 0)) == std::vector<int64_t>{1, 2, 0, 3});
  CHECK_THROWS_AS(ones_per_row(from_vector(std::vector<float>{1, 0, 1, 1}, {2, 2})), Error);
}

TEST_CASE("addp: every preset is consistent and survives being written as text") {
  for (const std::string& name : preset_names()) {
    const Config config = preset(name);
    CHECK_NOTHROW(config.validate());
    CHECK(list_fields(config_from_text(to_text(config))) == list_fields(config));
  }
  Config config = preset("tiny");
  set_field(config, "model.heads", "8");
  CHECK(config.model.heads == 8);
  CHECK_THROWS_AS(set_field(config, "model.heads", "eight"), Error);
  CHECK_THROWS_AS(set_field(config, "model.head", "8"), Error);
  set_field(config, "model.heads", "5");
  CHECK_THROWS_AS(config.validate(), Error);
}

// Parameters of blocks, head and embeddings, counted by hand from the paper's sizes.
static int64_t block_count(int64_t D) { return 12 * D * D + 13 * D; }
static int64_t head_count(int64_t D, int64_t V) { return V + D * D + D + 2 * D; }

TEST_CASE("addp: base and large have the official sizes") {
  for (const char* name : {"base", "large"}) {
    const Config config = preset(name);
    const int64_t D = config.model.width, V = 2025, L = 256, patch = 3 * 16 * 16;
    CHECK(config.vocabulary == V);
    CHECK(config.class_id == 1100);
    CHECK(config.mask_id == 2024);
    const int64_t shared = (config.model.depth + config.model.decoder_depth) * block_count(D) + head_count(D, V) +
                           D * D + D + 4 * D + patch * D + D + patch * D + patch;
    // One byte an element: only names and shapes matter, and large has a gigabyte in float32.
    constexpr Options kBytes = {DType::u8, Device::cpu};
    const int64_t in_addp = [&] {
      Addp model(config, kBytes);
      return count_parameters(model);
    }();
    release_cached_memory();
    const int64_t in_predictor = [&] {
      TokenPredictor predictor(config, kBytes);
      return count_parameters(predictor);
    }();
    release_cached_memory();
    CHECK(in_addp == shared + 2 * D + 2 * D + 7 * (L + 1) * D + V * D);
    CHECK(in_predictor == shared + 2 * D + 2 * D + 3 * (L + 1) * D + V * D + 257 * D);
  }
}

TEST_CASE("addp: names and shapes are those of the official checkpoints") {
  Config config = preset("base");
  config.image_size = 32, config.patch_size = 4;
  config.vqgan.codebook_size = 1024;
  config.predictor = config.model = {.width = 32, .depth = 2, .heads = 4, .decoder_depth = 2, .decoder_heads = 4};
  const auto compare = [](auto& module, const std::string& file) {
    std::map<std::string, Shape> ours, official;
    module.visit("", [&](const std::string& name, Var& var, Role) { ours[name] = var.shape(); });
    for (const auto& [name, tensor] : read_safetensors("tests/golden/" + file).tensors) official[name] = tensor.shape();
    CHECK(ours == official);
  };
  Addp model(config, kDouble);
  compare(model, "addp_weights.safetensors");
  TokenPredictor predictor(config, kDouble);
  compare(predictor, "mage_weights.safetensors");
  VisionTransformer classifier(classifier_config(config, 10), kDouble);
  compare(classifier, "vit_weights.safetensors");
}

TEST_CASE("addp: the training step's intermediates keep their promises") {
  TinyModels tiny;
  const Tensor codes = tiny.random_codes(2, 11);
  const NestedMasks masks = tiny.random_masks(2, 12);
  const StepResult step = training_step(tiny.model, tiny.vqgan, tiny.predictor, codes, masks);
  const int64_t L = tiny.config.tokens(), m = ones_per_row(masks.mask_t);
  CHECK(step.diffused.target_probs.shape() == Shape{2, L, tiny.config.codes()});
  const auto [low, high] = row_sums(step.diffused.target_probs);
  CHECK(low == doctest::Approx(1));
  CHECK(high == doctest::Approx(1));
  CHECK(step.diffused.noisy_image.shape() == Shape{2, 3, tiny.config.image_size, tiny.config.image_size});
  CHECK(step.latent.shape() == Shape{2, 1 + L, tiny.config.model.width});
  CHECK(step.logits.shape() == Shape{2, 1 + L + (L - m), tiny.config.vocabulary});
  CHECK(std::isfinite(step.loss.item()));

  // Reliable places hold their codes' embeddings, others the predictor's.
  const std::vector<double> embeddings = to_vector<double>(step.diffused.embeddings);
  const std::vector<double> hard = to_vector<double>(gather_rows(tiny.vqgan.codebook(), codes).value());
  const std::vector<double> soft = to_vector<double>(step.diffused.unreliable);
  const std::vector<double> mask = to_vector<double>(masks.mask_t);
  const size_t dim = embeddings.size() / mask.size();
  for (size_t i = 0; i < embeddings.size(); ++i) CHECK(embeddings[i] == (mask[i / dim] != 0 ? soft[i] : hard[i]));
}

TEST_CASE("addp: codes of unreliable places never reach the model, only the targets") {
  TinyModels tiny;
  const NestedMasks masks = tiny.random_masks(2, 13);
  const Tensor codes = tiny.random_codes(2, 14);
  std::vector<int64_t> changed = to_vector<int64_t>(codes);
  const std::vector<double> mask = to_vector<double>(masks.mask_t);
  for (size_t i = 0; i < changed.size(); ++i)
    if (mask[i] != 0) changed[i] = (changed[i] + 1) % tiny.config.codes();
  const StepResult a = training_step(tiny.model, tiny.vqgan, tiny.predictor, codes, masks);
  const StepResult b =
      training_step(tiny.model, tiny.vqgan, tiny.predictor, from_vector(changed, codes.shape()), masks);
  CHECK(same_bits(a.logits.value(), b.logits.value()));
  CHECK(same_bits(a.diffused.target_probs, b.diffused.target_probs));
}

TEST_CASE("addp: every ablation switch changes what it says") {
  TinyModels tiny;
  const Tensor codes = tiny.random_codes(2, 15);
  const NestedMasks masks = tiny.random_masks(2, 16);
  const auto run = [&](const ObjectiveConfig& objective) {
    tiny.model.config.objective = objective;
    return training_step(tiny.model, tiny.vqgan, tiny.predictor, codes, masks);
  };
  const StepResult full = run({});

  SUBCASE("hard targets: one-hot codes, the pixels as before") {
    const StepResult hard = run({.predicted_targets = false});
    CHECK(to_vector<int64_t>(argmax(hard.diffused.target_probs)) == to_vector<int64_t>(codes));
    CHECK(same_bits(hard.diffused.noisy_image, full.diffused.noisy_image));
    CHECK(hard.loss.item() != full.loss.item());
  }
  SUBCASE("without reliable tokens the decoder's sequence is shorter") {
    const StepResult without = run({.reliable_tokens = false});
    CHECK(without.logits.dim(1) == 1 + tiny.config.tokens());
    CHECK(same_bits(without.latent.value(), full.latent.value()));
    CHECK(without.loss.item() != full.loss.item());
  }
  SUBCASE("hard unreliable embeddings are rows of the codebook") {
    const StepResult hard = run({.soft_unreliable = false});
    const Tensor nearest = nearest_codes(hard.diffused.unreliable, tiny.vqgan.codebook().value());
    CHECK(same_bits(gather_rows(tiny.vqgan.codebook(), nearest).value(), hard.diffused.unreliable));
    CHECK(!same_bits(hard.diffused.noisy_image, full.diffused.noisy_image));
    CHECK(same_bits(hard.diffused.target_probs, full.diffused.target_probs));
  }
}

// Plain gradient descent on fixed batches: the loss after some steps.
template <class Module, class Loss>
static std::pair<double, double> descend(Module& module, Loss&& loss, int steps, double lr) {
  double first = 0, last = 0;
  for (int i = 0; i < steps; ++i) {
    const Var value = loss();
    REQUIRE(std::isfinite(value.item()));
    (i == 0 ? first : last) = value.item();
    backward(value);
    for (NamedVar& p : parameters(module)) {
      if (!p.var.grad().defined()) continue;
      const NoGrad no_grad;
      copy_into(p.var.value(), sub(detach(p.var), affine(Var(p.var.grad()), lr, 0)).value());
      p.var.clear_grad();
    }
  }
  return {first, last};
}

TEST_CASE("addp: both losses fall") {
  TinyModels tiny;
  const Tensor codes = tiny.random_codes(4, 17);
  const NestedMasks masks = tiny.random_masks(4, 18);
  Rng dropout_rng(19);
  const auto [first, last] = descend(
      tiny.model,
      [&] {
        return training_step(tiny.model, tiny.vqgan, tiny.predictor, codes, masks, {true, &dropout_rng}).loss;
      },
      20, 0.1);
  CHECK(last < first);

  set_trainable(tiny.predictor, true);
  Rng rng(20);
  const MageMasks mage = draw_mage_masks(4, tiny.config.tokens(), {}, rng, kDouble);
  const auto [mage_first, mage_last] = descend(
      tiny.predictor,
      [&] {
        return tiny.predictor.forward(codes, mage, {true, &dropout_rng}).loss;
      },
      20, 0.1);
  CHECK(mage_last < mage_first);
}

TEST_CASE("addp: gradients of both models agree with central differences") {
  TinyModels tiny;
  const Tensor codes = tiny.random_codes(2, 21);
  const NestedMasks masks = tiny.random_masks(2, 22);
  const Diffused diffused = diffuse(tiny.vqgan, tiny.predictor, codes, masks, tiny.config.objective);
  // The word embeddings are detached in the head, so a difference quotient sees more than the gradient does.
  const auto without_words = [](std::vector<NamedVar> list) {
    std::erase_if(list, [](const NamedVar& p) {
      return p.name == "token_emb.weight" || p.name == "token_emb.word_embeddings.weight";
    });
    return list;
  };
  const GradcheckResult addp_result =
      gradcheck([&] { return denoise(tiny.model, codes, masks, diffused, tiny.config.objective).loss; },
                without_words(parameters(tiny.model)), 2);
  CHECK_MESSAGE(addp_result.worst_error < 1e-6, addp_result.name);

  set_trainable(tiny.predictor, true);
  Rng rng(23);
  const MageMasks mage = draw_mage_masks(2, tiny.config.tokens(), {}, rng, kDouble);
  const GradcheckResult mage_result =
      gradcheck([&] { return tiny.predictor.forward(codes, mage).loss; }, without_words(parameters(tiny.predictor)), 2);
  CHECK_MESSAGE(mage_result.worst_error < 1e-6, mage_result.name);
}

TEST_CASE("addp: the frozen models get no gradient") {
  TinyModels tiny;
  backward(
      training_step(tiny.model, tiny.vqgan, tiny.predictor, tiny.random_codes(2, 24), tiny.random_masks(2, 25)).loss);
  for (NamedVar& p : parameters(tiny.vqgan)) CHECK(!p.var.grad().defined());
  for (NamedVar& p : parameters(tiny.predictor)) CHECK(!p.var.grad().defined());
  for (NamedVar& p : parameters(tiny.model)) CHECK_MESSAGE(p.var.grad().defined(), p.name);
}

TEST_CASE("addp: schedules fall to one masked token") {
  SamplerConfig config;
  for (const char* schedule : {"cosine", "linear"}) {
    config.schedule = schedule;
    int64_t before = 256;
    for (int64_t s = 0; s < config.steps; ++s) {
      const int64_t now = masked_after(s, 256, config);
      CHECK(now <= before);
      CHECK(now >= 1);
      before = now;
    }
    CHECK(before == 1);
  }
  config.schedule = "cosine";
  CHECK(masked_after(9, 256, config) == 182);  // ceil(256 cos(pi/4))
}

TEST_CASE("addp: sampling keeps known tokens and unmasks by schedule") {
  TinyModels tiny(preset("tiny"), {});
  Rng rng(26);
  std::vector<SamplerState> states;
  const SamplerConfig config = tiny.config.sampler;
  const int64_t L = tiny.config.tokens();
  const Samples samples = sample(tiny.model, tiny.vqgan, start_sampling(3, L, {}), config, rng,
                                 [&](const SamplerState& state) { states.push_back(state); });
  REQUIRE(static_cast<int64_t>(states.size()) == config.steps);
  for (size_t s = 0; s < states.size(); ++s) {
    CHECK(ones_per_row(states[s].mask) == masked_after(static_cast<int64_t>(s), L, config));
    if (s == 0) continue;
    const std::vector<int64_t> before = to_vector<int64_t>(states[s - 1].codes),
                               now = to_vector<int64_t>(states[s].codes);
    const std::vector<float> masked = to_vector<float>(states[s - 1].mask),
                             masked_now = to_vector<float>(states[s].mask);
    for (size_t i = 0; i < now.size(); ++i) {
      if (masked[i] != 0) continue;
      CHECK(now[i] == before[i]);
      CHECK(masked_now[i] == 0);
    }
  }
  // The final decode has no soft token; the official sampler's image has one.
  const Tensor hard = decode_codes(tiny.vqgan, samples.codes);
  CHECK(same_bits(samples.image, clamp(Var(hard), 0, 1).value()));
  CHECK(!same_bits(states.back().image, hard));

  Rng same_rng(26);
  const Samples again = sample(tiny.model, tiny.vqgan, start_sampling(3, L, {}), config, same_rng);
  CHECK(same_bits(again.image, samples.image));
}

TEST_CASE("addp: inpainting never changes given tokens, and the encoder sees them") {
  TinyModels tiny(preset("tiny"), {});
  const Tensor codes = tiny.random_codes(2, 27);
  const int64_t L = tiny.config.tokens();
  std::vector<float> mask(static_cast<size_t>(2 * L));
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 2 == 0;
  SamplerState start = start_inpainting(tiny.vqgan, codes, from_vector(mask, {2, L}));
  CHECK(start.unknown == L / 2);
  CHECK(start.image.defined());
  for (bool pixels : {true, false}) {
    Rng rng(28);
    const Samples samples = pixels ? sample(tiny.model, tiny.vqgan, start, tiny.config.sampler, rng)
                                   : sample_predictor(tiny.predictor, tiny.vqgan, start, tiny.config.sampler, rng);
    const std::vector<int64_t> given = to_vector<int64_t>(codes), made = to_vector<int64_t>(samples.codes);
    int64_t changed = 0;
    for (size_t i = 0; i < given.size(); ++i) {
      if (mask[i] == 0) CHECK(made[i] == given[i]);
      changed += made[i] != given[i];
    }
    CHECK(changed > 0);
  }
  CHECK_THROWS_AS(start_inpainting(tiny.vqgan, codes, zeros({2, L})), Error);
}

TEST_CASE("addp: the first step does without an encoder pass") {
  // With every place masked the decoder must not see the latent at all.
  TinyModels tiny;
  const int64_t L = tiny.config.tokens();
  Rng rng(29);
  const Tensor all = ones({2, L}, kDouble), codes = tiny.random_codes(2, 30);
  const Var latent(rng.normal({2, 1 + L, tiny.config.model.width}, kDouble));
  CHECK(same_bits(tiny.model.decoder.forward(latent, codes, all).value(),
                  tiny.model.decoder.forward({}, codes, all).value()));
  CHECK_THROWS_AS(tiny.model.decoder.forward({}, codes, zeros({2, L}, kDouble)), Error);
}

TEST_CASE("addp: sampler switches") {
  const TinyModels tiny;
  const int64_t L = tiny.config.tokens();
  Rng rng(31);
  SamplerState start = start_sampling(2, L, kDouble);
  start.step = 2;  // of 4: half of the masked places become known
  const StepNoise noise = draw_step_noise(2, L, rng, kDouble);
  const Tensor probs = softmax(Var(rng.normal({2, L, tiny.config.codes()}, kDouble))).value();
  SamplerConfig config = tiny.config.sampler;
  const SamplerState plain = update_tokens(start, probs, noise, config);

  config.top_p = 1e-9;  // only the likeliest code is left
  CHECK(same_bits(update_tokens(start, probs, noise, config).codes, argmax(probs)));
  config.top_p = 1;
  config.anneal = false;
  const SamplerState constant = update_tokens(start, probs, noise, config);
  CHECK(same_bits(constant.codes, plain.codes));
  CHECK(!same_bits(constant.mask, plain.mask));
  config.schedule = "linear";
  CHECK(ones_per_row(update_tokens(start, probs, noise, config).mask) != ones_per_row(plain.mask));
  config.schedule = "cubic";
  CHECK_THROWS_AS(update_tokens(start, probs, noise, config), Error);
}

TEST_CASE("addp: recognition") {
  TinyModels tiny(preset("tiny"), {});
  Rng rng(32);
  const int64_t size = tiny.config.image_size;
  const Tensor images = rng.uniform({3, 3, size, size});
  const Tensor features = recognition_features(tiny.model.encoder, images);
  CHECK(features.shape() == Shape{3, tiny.config.model.width});
  CHECK(!same_bits(features, recognition_features(tiny.model.encoder, images, true)));

  // The fine-tuning model started from the encoder computes the same features.
  VisionTransformer classifier(classifier_config(tiny.config, 5), {});
  start_from_encoder(classifier, tiny.model.encoder);
  const Var tokens = classifier.features(normalize_pixels(Var(images)));
  CHECK(same_bits(mean_axis(slice(tokens, 1, 1, tokens.dim(1)), 1).value(), features));
  CHECK(classifier(normalize_pixels(Var(images))).shape() == Shape{3, 5});
}

TEST_CASE("addp: the linear probe separates what is separable") {
  Rng rng(33);
  const int64_t N = 300, D = 8;
  std::vector<float> features = to_vector<float>(rng.normal({N, D}));
  std::vector<int64_t> labels(static_cast<size_t>(N));
  for (size_t i = 0; i < labels.size(); ++i) {
    labels[i] = static_cast<int64_t>(i % 3);
    features[i * D + i % 3] += 4;
  }
  const Tensor x = from_vector(features, {N, D}), y = from_vector(labels, {N});
  const LinearProbe probe = train_linear_probe(x, y, 3, preset("tiny").train_probe, Rng(34));
  CHECK(probe_accuracy(probe, x, y) > 0.9);
}

}  // namespace addp
