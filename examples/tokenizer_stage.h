// How a tokenizer learns to turn images into codes and back, whatever its networks are (VQGAN, Esser et al. 2021):
// reconstruction, perceptual and adversarial losses, and a codebook that stays in use. Tokenizer: Vqgan or VitVqgan.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "examples/model_stage.h"
#include "examples/pictures.h"
#include "nn/codebook_ema.h"
#include "nn/discriminator.h"
#include "nn/init.h"
#include "nn/lpips.h"
#include "tensor/safetensors.h"

namespace addp {

template <class Tokenizer>
class TokenizerStage : public ModelStage<Tokenizer> {
 public:
  // name: of the random numbers that the weights start from. codebook_restart: step before which the codebook starts
  // from data once more, as before the first; 0: it does not.
  template <class Sizes>
  TokenizerStage(const Config& config, const Sizes& sizes, const StageConfig& recipe, const char* name,
                 const std::string& lpips_file, uint64_t seed, Options on, int64_t codebook_restart = 0)
      : ModelStage<Tokenizer>(Tokenizer(sizes, on), on),
        config_(config),
        recipe_(recipe),
        codebook_restart_(codebook_restart),
        usage_(config.codes()) {
    const Rng rng(seed);
    initialize(model_, rng.fork(name));
    if (config.tokenizer.ema_codebook) ema_.emplace(model_.quantizer, CodebookEmaConfig());
    trainer_.emplace(gradient_parameters(), recipe);
    if (config.tokenizer.gan_start >= 0) {
      discriminator_.emplace(
          DiscriminatorConfig{config.vqgan.image_channels, config.tokenizer.ndf, config.tokenizer.discriminator_layers},
          on);
      initialize(*discriminator_, rng.fork("discriminator"));
      discriminator_trainer_.emplace(parameters(*discriminator_), discriminator_recipe());
    }
    if (!lpips_file.empty()) {
      lpips_.emplace(on);
      load_state_dict(*lpips_, read_safetensors(lpips_file).tensors, {lpips_file});
    }
    std::fprintf(stderr, "losses: L1%s%s\n", lpips_ ? " + LPIPS" : "",
                 discriminator_ ? concat_text(" + GAN from step ", config.tokenizer.gan_start,
                                              lpips_ ? "" : " (no perceptual loss: no --lpips weights)")
                                      .c_str()
                                : " (no GAN, tokenizer.gan_start is negative)");
  }

  Scalars step(const Batch& batch, int64_t step, Rng& rng) override {
    const Var image(to(batch.images, on_));
    const Var z = model_.encode(image);
    if (ema_ && (step == 0 || step == codebook_restart_)) {
      Rng start = rng.fork("codebook");
      ema_->start(z.value(), start);
    }
    const Quantized quantized = model_.quantize(z);
    const Var reconstruction = model_.decode(quantized.z_q);

    // What the image lost, and what the codes cost.
    const Var l1 = mean(abs(reconstruction - image));
    Var nll = l1;
    double perceptual_value = 0;
    if (lpips_) {
      const Var distance = mean((*lpips_)(affine(image, 2, -1), affine(reconstruction, 2, -1)));
      perceptual_value = distance.item();
      nll = nll + config_.tokenizer.perceptual_weight * distance;
    }
    Var loss = nll + config_.tokenizer.codebook_weight * quantized.codebook_loss;

    Scalars gan;
    const bool adversarial = discriminator_ && step >= config_.tokenizer.gan_start;
    if (adversarial) {
      set_trainable(*discriminator_, false);
      const Var g_loss = hinge_generator_loss((*discriminator_)(reconstruction, Mode{true, nullptr}));
      const double weight = adaptive_gan_weight(nll, g_loss, model_.last_weight(), 1.0, config_.tokenizer.gan_limit);
      loss = loss + (config_.tokenizer.gan_weight * weight) * g_loss;
      gan = {{"g_loss", g_loss.item()}, {"adaptive_weight", weight}};
    }
    const double total = loss.item(), l1_value = l1.item(), codebook_value = quantized.codebook_loss.item();
    backward(loss);
    const double norm = trainer_->update(step);
    int64_t revived = 0;
    if (ema_) revived = ema_->update(z.value(), quantized.codes, rng);
    if (adversarial) {
      set_trainable(*discriminator_, true);  // not before: the generator's backward pass must leave it alone
      gan.emplace_back("d_loss", discriminator_step(image, reconstruction, step));
    }

    usage_.add(quantized.codes);
    Scalars values = {{"loss", total},
                      {"l1", l1_value},
                      {"codebook", codebook_value},
                      {"usage_%", 100 * usage_.used_share()},
                      {"perplexity", usage_.perplexity()},
                      {"revived", static_cast<double>(revived)},
                      {"grad_norm", norm},
                      {"lr", trainer_->learning_rate(step)}};
    if ((step + 1) % kUsageSteps == 0) usage_.reset();
    if (lpips_) values.emplace_back("perceptual", perceptual_value);
    // All scalars are there from the first step on, so that means over log intervals are of one kind.
    if (discriminator_ && gan.empty()) gan = {{"g_loss", 0}, {"adaptive_weight", 0}, {"d_loss", 0}};
    values.insert(values.end(), gan.begin(), gan.end());
    return values;
  }

  std::vector<Picture> pictures(const Batch& test_images) override {
    NoGrad no_grad;
    return trainer_->with_average([&] {
      const Tensor codes = model_.encode_codes(Var(to(test_images.images, on_)));
      const Tensor decoded = model_.decode_tokens(model_.embed_codes(codes)).value();
      return std::vector<Picture>{{"reconstructions", pairs_png(test_images.images, to(decoded, Options()), 8)}};
    });
  }

 private:
  using ModelStage<Tokenizer>::model_;
  using ModelStage<Tokenizer>::on_;
  using ModelStage<Tokenizer>::trainer_;

  static constexpr int64_t kUsageSteps = 50;  // usage and perplexity are of so many steps at most

  // All parameters, or all but a codebook that follows moving averages.
  std::vector<NamedVar> gradient_parameters() {
    std::vector<NamedVar> list;
    for (const NamedVar& p : parameters(model_)) {
      if (p.var.needs_grad()) list.push_back(p);
    }
    return list;
  }

  // The discriminator starts when the generator is past its warm-up, with the same recipe.
  StageConfig discriminator_recipe() const {
    StageConfig recipe = recipe_;
    recipe.ema_decay = 0;
    return recipe;
  }

  double discriminator_step(const Var& image, const Var& reconstruction, int64_t step) {
    const Mode mode{true, nullptr};
    const Var real = (*discriminator_)(image, mode);
    const Var loss = hinge_discriminator_loss(real, (*discriminator_)(detach(reconstruction), mode));
    const double value = loss.item();
    backward(loss);
    discriminator_trainer_->update(step);
    return value;
  }

  std::vector<NamedVar> training_state() override {
    std::vector<NamedVar> all = tensors(*trainer_);
    const auto append = [&](const std::vector<NamedVar>& more) { all.insert(all.end(), more.begin(), more.end()); };
    if (ema_) append(tensors(*ema_, "codebook."));
    if (discriminator_) {
      append(tensors(*discriminator_, "discriminator."));
      append(tensors(*discriminator_trainer_, "discriminator_optimizer."));
    }
    return all;
  }

  Config config_;
  StageConfig recipe_;
  int64_t codebook_restart_;
  CodebookUsage usage_;
  std::optional<CodebookEma> ema_;
  std::optional<Discriminator> discriminator_;
  std::optional<ModelTrainer> discriminator_trainer_;
  std::optional<Lpips> lpips_;
};

}  // namespace addp
