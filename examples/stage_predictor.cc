// Stage 2: the token predictor learns to tell the codes of masked places (MAGE).
#include "addp/objective.h"
#include "addp/sampler.h"
#include "addp/token_predictor.h"
#include "examples/frozen.h"
#include "examples/model_stage.h"
#include "examples/pictures.h"
#include "examples/run_config.h"

namespace addp {
namespace {

class PredictorStage : public ModelStage<TokenPredictor> {
 public:
  PredictorStage(const Config& config, std::unique_ptr<Vqgan> vqgan, uint64_t seed, Options on)
      : ModelStage(TokenPredictor(config, on), on), config_(config), vqgan_(std::move(vqgan)), seed_(seed) {
    initialize(model_, Rng(seed).fork("predictor"));
    trainer_.emplace(parameters(model_), config.train_predictor);
  }

  Scalars step(const Batch& batch, int64_t step, Rng& rng) override {
    const Tensor codes = vqgan_->encode_codes(Var(to(batch.images, on_)));
    const MageMasks masks = draw_mage_masks(codes.dim(0), codes.dim(1), config_.masking, rng, on_);
    const TokenPredictor::Result result = model_.forward(codes, masks, Mode{true, &rng});
    return learn(result.loss, step, [&] {
      return Scalars{{"accuracy", masked_accuracy(detach(result.logits), codes, masks.mask_all)}};
    });
  }

  StateDict frozen_weights() override { return state_dict(*vqgan_); }

  // Samples of the predictor alone, without pixels in the loop.
  std::vector<Picture> pictures(const Batch&) override {
    NoGrad no_grad;
    Rng rng = Rng(seed_).fork("pictures");
    return trainer_->with_average([&] {
      const Samples samples =
          sample_predictor(model_, *vqgan_, start_sampling(16, config_.tokens(), on_), config_.sampler, rng);
      return std::vector<Picture>{{"predictor_samples", grid_png(to(samples.image, Options()), 8)}};
    });
  }

 private:
  Config config_;
  std::unique_ptr<Vqgan> vqgan_;
  uint64_t seed_;
};

}  // namespace

std::unique_ptr<Stage> make_predictor_stage(const Config& config, const TrainOptions& options) {
  check_as(ErrorKind::usage, !options.tokenizer.empty(),
           "train predictor: --tokenizer RUN is missing (the run folder of `addp train vqgan`)");
  const Options on = network_options(options.common);
  auto vqgan = load_vqgan(options.tokenizer, on);
  check_fits(*vqgan, config, options.tokenizer);
  return std::make_unique<PredictorStage>(config, std::move(vqgan), options.common.seed, on);
}

}  // namespace addp
