// Stage 3: encoder and decoder of ADDP learn from noisy pixels and the token predictor's distributions.
#include <set>

#include "addp/addp.h"
#include "addp/objective.h"
#include "addp/sampler.h"
#include "examples/frozen.h"
#include "examples/model_stage.h"
#include "examples/pictures.h"
#include "examples/run_config.h"

namespace addp {
namespace {

class AddpStage : public ModelStage<Addp> {
 public:
  AddpStage(const Config& config, std::unique_ptr<Vqgan> vqgan, std::unique_ptr<TokenPredictor> predictor,
            uint64_t seed, Options on)
      : ModelStage(Addp(config, on), on),
        config_(config),
        vqgan_(std::move(vqgan)),
        predictor_(std::move(predictor)),
        seed_(seed) {
    initialize(model_, Rng(seed).fork("addp"));
    std::set<std::string> encoder;
    for (const NamedVar& p : parameters(model_.encoder)) encoder.insert(p.name);
    trainer_.emplace(parameters(model_), config.train_addp,
                     [&](const std::string& name) { return encoder.count(name) ? config.encoder_lr_scale : 1; });
  }

  Scalars step(const Batch& batch, int64_t step, Rng& rng) override {
    const Tensor codes = vqgan_->encode_codes(Var(to(batch.images, on_)));
    const StepResult result = training_step(model_, *vqgan_, *predictor_, codes, rng, Mode{true, &rng});
    return learn(result.loss, step, [&] {
      return Scalars{{"accuracy", masked_accuracy(detach(result.logits), codes, result.masks.mask_t)}};
    });
  }

  StateDict frozen_weights() override {
    StateDict all = state_dict(*vqgan_, "vqgan.");
    all.merge(state_dict(*predictor_, "predictor."));
    return all;
  }

  std::vector<Picture> pictures(const Batch& test_images) override {
    NoGrad no_grad;
    Rng rng = Rng(seed_).fork("pictures");
    return trainer_->with_average([&] {
      AlternationStrip strip(3);
      const Samples samples = sample(model_, *vqgan_, start_sampling(16, config_.tokens(), on_), config_.sampler, rng,
                                     [&](const SamplerState& state) { strip.add(state); });
      const Tensor image = to(samples.image, Options());
      return std::vector<Picture>{{"addp_samples", grid_png(image, 8)},
                                  {"alternation", strip.png(image)},
                                  {"noisy_images", noisy_images(test_images, rng)}};
    });
  }

 private:
  // What the encoder is trained on: test images above their noisy versions x_t.
  std::string noisy_images(const Batch& test_images, Rng& rng) {
    const Tensor codes = vqgan_->encode_codes(Var(to(test_images.images, on_)));
    const NestedMasks masks = draw_nested_masks(codes.dim(0), codes.dim(1), config_.masking, rng, on_);
    const Diffused diffused = diffuse(*vqgan_, *predictor_, codes, masks, config_.objective);
    return pairs_png(test_images.images, to(diffused.noisy_image, Options()), 8);
  }

  Config config_;
  std::unique_ptr<Vqgan> vqgan_;
  std::unique_ptr<TokenPredictor> predictor_;
  uint64_t seed_;
};

}  // namespace

std::unique_ptr<Stage> make_addp_stage(const Config& config, const TrainOptions& options) {
  check_as(
      ErrorKind::usage, !options.tokenizer.empty() && !options.predictor.empty(),
      "train addp: needs --tokenizer RUN and --predictor RUN (the run folders of `addp train vqgan` and `addp train "
      "predictor`)");
  const Options on = network_options(options.common);
  auto vqgan = load_vqgan(options.tokenizer, on);
  check_fits(*vqgan, config, options.tokenizer);
  auto predictor = load_predictor(options.predictor, on);
  check_fits(*predictor, config, options.predictor);
  return std::make_unique<AddpStage>(config, std::move(vqgan), std::move(predictor), options.common.seed, on);
}

}  // namespace addp
