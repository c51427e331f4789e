// The training step of ADDP: its intermediates, every ablation switch, losses and gradients. Numbers against the
// official implementation are checked by the parity tests.
#include <algorithm>
#include <cmath>
#include <map>

#include "addp/objective.h"
#include "autograd/codes.h"
#include "tests/tiny_models.h"

namespace addp {

// Smallest and largest row sum of a tensor's last axis.
static std::pair<double, double> row_sums(const Tensor& x) {
  const std::vector<double> values = to_vector<double>(sum_axis(Var(to(x, kDouble)), x.rank() - 1).value());
  return {*std::min_element(values.begin(), values.end()), *std::max_element(values.begin(), values.end())};
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
  CHECK(step.latent.shape() == Shape{2, 1 + L - m, tiny.config.model.width});
  CHECK(step.logits.shape() == Shape{2, m, tiny.config.vocabulary});
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
    const Var latent = tiny.model.encoder.forward(Var(full.diffused.noisy_image));
    CHECK(tiny.model.decoder.forward(latent, codes, masks.mask_t, false).dim(1) == 1 + tiny.config.tokens());
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

// Gradients of all parameters, largest difference over the largest entry of each; parameters keep none.
template <class Module, class Loss>
static std::pair<double, std::map<std::string, Tensor>> loss_and_gradients(Module& module, Loss&& loss) {
  const Var value = loss();
  backward(value);
  std::map<std::string, Tensor> gradients;
  for (NamedVar& p : parameters(module)) {
    if (p.var.grad().defined()) gradients[p.name] = p.var.grad();
    p.var.clear_grad();
  }
  return {value.item(), gradients};
}
template <class Module, class Needed, class All>
static void check_same_learning(Module& module, Needed&& needed, All&& all) {
  const auto [loss, gradients] = loss_and_gradients(module, needed);
  const auto [full_loss, full_gradients] = loss_and_gradients(module, all);
  CHECK(loss == doctest::Approx(full_loss).epsilon(1e-14));
  CHECK(gradients.size() == full_gradients.size());
  for (const auto& [name, gradient] : full_gradients) {
    INFO(name);
    REQUIRE(gradients.count(name) == 1);
    CHECK(largest_difference(gradients.at(name), gradient) < 1e-14);
  }
}

TEST_CASE("addp: rows that the loss does not depend on are left out, and change nothing") {
  TinyModels tiny;
  const Tensor codes = tiny.random_codes(3, 41);
  const NestedMasks masks = tiny.random_masks(3, 42);
  const int64_t L = tiny.config.tokens();
  const ObjectiveConfig& objective = tiny.config.objective;
  const Diffused diffused = diffuse(tiny.vqgan, tiny.predictor, codes, masks, objective);
  check_same_learning(
      tiny.model, [&] { return denoise(tiny.model, codes, masks, diffused, objective).loss; },
      [&] {
        const Var latent = tiny.model.encoder.forward(Var(diffused.noisy_image));
        const Var logits = tiny.model.decoder.forward(latent, codes, masks.mask_t);
        CHECK(logits.dim(1) == 1 + L + (L - ones_per_row(masks.mask_t)));
        return soft_cross_entropy(slice(logits, 1, 1, 1 + L), diffused.target_probs, masks.mask_t,
                                  objective.label_smoothing);
      });

  set_trainable(tiny.predictor, true);
  Rng rng(43);
  const MageMasks mage = draw_mage_masks(3, L, tiny.config.masking, rng, kDouble);
  const PlacedMasks all = place(mage.mask_all, mage.mask_dropped, kDouble);
  CHECK(tiny.predictor.forward(codes, all).logits.dim(1) == 1 + L);
  CHECK(tiny.predictor.forward(codes, mage).logits.dim(1) == ones_per_row(mage.mask_all));
  check_same_learning(
      tiny.predictor, [&] { return tiny.predictor.forward(codes, mage).loss; },
      [&] { return tiny.predictor.forward(codes, all).loss; });

  // The prediction at masked places, and a prediction of nothing.
  const PlacedMasks known = place(masks.mask_t, zeros_like(masks.mask_t), kDouble);
  const Var logits = tiny.predictor.forward_decoder(tiny.predictor.forward_encoder(codes, known), known);
  const Var probs = softmax(slice(slice(logits, 1, 1, 1 + L), 2, 0, tiny.config.codes()));
  const Tensor unreliable = places(masks.mask_t, 1);
  CHECK(largest_difference(gather_tokens(Var(diffused.target_probs), unreliable).value(),
                           gather_tokens(probs, unreliable).value()) < 1e-14);
  CHECK_THROWS_AS(tiny.predictor.predict(codes, zeros_like(masks.mask_t)), Error);
}

TEST_CASE("addp: accuracy counts the masked places alone") {
  const Tensor mask = from_vector(std::vector<double>{1, 0, 1, 0, 1, 1}, {2, 3});
  const Tensor codes = from_vector(std::vector<int64_t>{0, 1, 2, 2, 1, 0}, {2, 3});
  // Likeliest: 0 (right), 1 (wrong); 1 (right), 0 (right).
  const Var logits(from_vector(std::vector<double>{9, 0, 0, 0, 9, 0, 0, 9, 0, 9, 0, 0}, {2, 2, 3}));
  CHECK(masked_accuracy(logits, codes, mask) == 0.75);
  CHECK_THROWS_AS(masked_accuracy(logits, codes, ones({2, 3}, kDouble)), Error);
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

}  // namespace addp
