// Fine-tuning a pre-trained encoder as a classifier, or training the same model from scratch (--encoder none): the
// recipe of MAE and BEiT. Layer-wise learning rates, drop path, mixup and CutMix, random erasing, label smoothing,
// moving average of the weights.
#include "addp/classifier.h"
#include "autograd/codes.h"
#include "autograd/ops.h"
#include "data/mixing.h"
#include "examples/accuracy.h"
#include "examples/encoder_of_run.h"
#include "examples/model_trainer.h"
#include "examples/run_config.h"
#include "examples/stage.h"
#include "nn/schedule.h"

namespace addp {
namespace {

class FinetuneStage : public Stage {
 public:
  FinetuneStage(const Config& config, std::unique_ptr<Backbone> backbone, int64_t classes, bool pretrained,
                uint64_t seed, Options on)
      : config_(config), on_(on), classes_(classes), model_(std::move(backbone), classes, Rng(seed), on) {
    const double decay = pretrained ? config.finetune.layer_decay : 1;
    const int64_t depth = model_.backbone->depth;
    trainer_.emplace(parameters(model_), config.train_finetune,
                     [=](const std::string& name) { return layer_scale(name, depth, decay); });
  }

  Scalars step(const Batch& batch, int64_t step, Rng& rng) override {
    const FinetuneConfig& recipe = config_.finetune;
    const MixedBatch mixed = mix(batch, classes_, {.mixup = recipe.mixup, .cutmix = recipe.cutmix}, rng);
    const Tensor targets = to(mixed.targets, on_);
    const Var logits = model_(Var(to(mixed.images, on_)), {true, &rng});
    const Var loss = soft_cross_entropy(logits, targets, Tensor(), recipe.label_smoothing);
    const double value = loss.item();
    const double right = static_cast<double>(count_equal(argmax(logits.value()), argmax(targets)));
    backward(loss);
    const double norm = trainer_->update(step);
    return {{"loss", value},
            {"accuracy", right / static_cast<double>(logits.dim(0))},
            {"grad_norm", norm},
            {"lr", trainer_->learning_rate(step)}};
  }

  StateDict weights() override { return state_dict(model_); }
  StateDict averaged_weights() override { return averaged_state(model_, *trainer_); }
  StateDict optimizer_state() override { return state_dict(*trainer_); }
  void load(const StateDict& weights, const StateDict& optimizer_state) override {
    load_state_dict(model_, weights, {"weights.safetensors"});
    load_state_dict(*trainer_, optimizer_state, {"optimizer.safetensors"});
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
  Options on_;
  int64_t classes_;
  Classifier model_;
  std::optional<ModelTrainer> trainer_;
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
