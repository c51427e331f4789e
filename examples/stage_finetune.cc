// Fine-tuning a pre-trained encoder as a classifier, or training the same model from scratch (--encoder none): the
// recipe of MAE and BEiT. Layer-wise learning rates, drop path, mixup and CutMix, random erasing, label smoothing,
// moving average of the weights.
#include "addp/classifier.h"
#include "autograd/codes.h"
#include "autograd/ops.h"
#include "data/mixing.h"
#include "examples/accuracy.h"
#include "examples/encoder_of_run.h"
#include "examples/model_stage.h"
#include "examples/run_config.h"

namespace addp {
namespace {

class FinetuneStage : public ModelStage<Classifier> {
 public:
  FinetuneStage(const Config& config, std::unique_ptr<Backbone> backbone, int64_t classes, bool pretrained,
                uint64_t seed, Options on)
      : ModelStage(Classifier(std::move(backbone), classes, Rng(seed), on), on), config_(config), classes_(classes) {
    trainer_.emplace(parameters(model_), config.train_finetune,
                     layer_decay(*model_.backbone, pretrained ? config.finetune.layer_decay : 1));
  }

  Scalars step(const Batch& batch, int64_t step, Rng& rng) override {
    const FinetuneConfig& recipe = config_.finetune;
    const MixedBatch mixed = mix(batch, classes_, {.mixup = recipe.mixup, .cutmix = recipe.cutmix}, rng);
    const Tensor targets = to(mixed.targets, on_);
    const Var logits = model_(Var(to(mixed.images, on_)), {true, &rng});
    return learn(soft_cross_entropy(logits, targets, Tensor(), recipe.label_smoothing), step, [&] {
      return Scalars{{"accuracy", share_equal(argmax(logits.value()), argmax(targets))}};
    });
  }

  std::vector<Picture> pictures(const Batch&) override { return {}; }

  Figures evaluate(const Dataset& test) override {
    const NoGrad no_grad;
    return trainer_->with_average([&] {
      return test_accuracy(test, config_.image_size,
                           [&](const Tensor& images) { return argmax(model_(Var(to(images, on_))).value()); });
    });
  }

 private:
  Config config_;
  int64_t classes_;
};

}  // namespace

std::unique_ptr<Stage> make_finetune_stage(const Config& config, const TrainOptions& options, int64_t classes) {
  const Options on = network_options(options.common);
  const BackboneOptions backbone = {.drop_path = config.finetune.drop_path,
                                    .tokenizer_norm = config.finetune.tokenizer_norm};
  const uint64_t seed = options.common.seed;
  return std::make_unique<FinetuneStage>(
      config, backbone_of_run(options.encoder, config, backbone, Rng(seed).fork("encoder"), on), classes,
      options.encoder != kNoEncoder, seed, on);
}

}  // namespace addp
