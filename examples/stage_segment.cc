// Semantic segmentation on a pre-trained encoder, or from scratch (--encoder none): cross entropy over pixels.
#include <algorithm>
#include <cstdio>

#include "addp/dense.h"
#include "autograd/codes.h"
#include "autograd/ops.h"
#include "examples/batches.h"
#include "examples/dense_pictures.h"
#include "examples/encoder_of_run.h"
#include "examples/model_trainer.h"
#include "examples/progress.h"
#include "examples/run_config.h"
#include "examples/stage.h"
#include "nn/miou.h"
#include "nn/schedule.h"

namespace addp {
namespace {

// [B, C, H, W] -> [B, H, W, C]
Var classes_last(const Var& logits) { return permute(logits, {0, 2, 3, 1}); }

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", 100 * share);
  return text;
}

class SegmentStage : public Stage {
 public:
  SegmentStage(const Config& config, std::unique_ptr<Backbone> backbone, std::vector<std::string> class_names,
               bool pretrained, uint64_t seed, Options on)
      : config_(config),
        on_(on),
        class_names_(std::move(class_names)),
        model_(std::move(backbone), classes(), config.dense.head_width, Rng(seed), on) {
    const double decay = pretrained ? config.dense.layer_decay : 1;
    const int64_t depth = model_.backbone->depth;
    trainer_.emplace(parameters(model_), config.train_segment,
                     [=](const std::string& name) { return layer_scale(name, depth, decay); });
  }

  Scalars step(const Batch& batch, int64_t step, Rng& rng) override {
    const Var logits = classes_last(model_(Var(to(batch.images, on_)), {true, &rng}));
    const auto [labels, weights] = targets(batch.masks);
    const Var loss = cross_entropy(logits, labels, weights, 0);
    const double value = loss.item();
    ConfusionMatrix confusion(classes());
    confusion.add(argmax(logits.value()), batch.masks, kUnjudged);
    backward(loss);
    const double norm = trainer_->update(step);
    return {{"loss", value},
            {"accuracy", confusion.pixel_accuracy()},
            {"miou", confusion.mean_iou()},
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

  std::vector<Picture> pictures(const Batch& test) override {
    constexpr int64_t kColumns = 8;
    const Tensor found = trainer_->with_average([&] { return predict(test.images); });
    return {{"segmentation", masks_png(test.images, test.masks, found, std::min(kColumns, test.images.dim(0)))}};
  }

  Figures evaluate(const Dataset& test) override {
    constexpr int64_t kBatch = 32;
    Progress progress("test", 0, test.size());
    ConfusionMatrix confusion(classes());
    trainer_->with_average([&] {
      for (int64_t begin = 0; begin < test.size(); begin += kBatch) {
        const int64_t end = std::min(begin + kBatch, test.size());
        const Batch batch = read_batch(test, begin, end, config_.dense.image_size);
        confusion.add(predict(batch.images), batch.masks, kUnjudged);
        progress.update(end, {}, end - begin);
      }
    });
    Figures figures = {{"test mIoU", percent(confusion.mean_iou())},
                       {"test pixel accuracy", percent(confusion.pixel_accuracy())},
                       {"test images", std::to_string(test.size())}};
    const std::vector<double> each = confusion.iou();
    for (size_t c = 0; c < each.size(); ++c) {
      if (each[c] >= 0) figures.emplace_back("IoU " + (c == 0 ? "background" : class_names_[c - 1]), percent(each[c]));
    }
    return figures;
  }

 private:
  int64_t classes() const { return static_cast<int64_t>(class_names_.size()) + 1; }

  Tensor predict(const Tensor& images) const {  // [B, H, W] i64 on the CPU
    const NoGrad no_grad;
    return to(argmax(classes_last(model_(Var(to(images, on_)))).value()), {DType::i64, Device::cpu});
  }

  // Labels with 0 where the mask is not judged, and weights that are 0 there; no weights where everything is.
  std::pair<Tensor, Tensor> targets(const Tensor& masks) const {
    std::vector<int64_t> labels = to_vector<int64_t>(masks);
    std::vector<float> weights(labels.size(), 1);
    bool all = true;
    for (size_t i = 0; i < labels.size(); ++i) {
      if (labels[i] != kUnjudged) continue;
      labels[i] = 0, weights[i] = 0;
      all = false;
    }
    return {to(from_vector(labels, masks.shape()), {DType::i64, on_.device}),
            all ? Tensor() : to(from_vector(weights, masks.shape()), on_)};
  }

  Config config_;
  Options on_;
  std::vector<std::string> class_names_;
  Segmenter model_;
  std::optional<ModelTrainer> trainer_;
};

}  // namespace

std::unique_ptr<Stage> make_segment_stage(const Config& config, const TrainOptions& options, const Dataset& training) {
  check_as(ErrorKind::usage, training.has_masks, "train segment: ", training.name,
           " has no class masks; use --data scenes or a folder with images and masks");
  const Options on = network_options(options.common);
  const uint64_t seed = options.common.seed;
  return std::make_unique<SegmentStage>(
      config, backbone_of_run(options.encoder, config, dense_backbone(config), Rng(seed).fork("encoder"), on),
      training.class_names, options.encoder != kNoEncoder, seed, on);
}

}  // namespace addp
