// Semantic segmentation on a pre-trained encoder, or from scratch (--encoder none): cross entropy over pixels.
#include <algorithm>

#include "addp/dense.h"
#include "autograd/codes.h"
#include "autograd/ops.h"
#include "examples/batches.h"
#include "examples/dense_pictures.h"
#include "examples/encoder_of_run.h"
#include "examples/model_stage.h"
#include "examples/progress.h"
#include "examples/run_config.h"
#include "nn/miou.h"

namespace addp {
namespace {

// [B, C, H, W] -> [B, H, W, C]
Var classes_last(const Var& logits) { return permute(logits, {0, 2, 3, 1}); }

class SegmentStage : public ModelStage<Segmenter> {
 public:
  SegmentStage(const Config& config, std::unique_ptr<Backbone> backbone, std::vector<std::string> class_names,
               bool pretrained, uint64_t seed, Options on)
      : ModelStage(Segmenter(std::move(backbone), 1 + static_cast<int64_t>(class_names.size()), config.dense.head_width,
                             Rng(seed), on),
                   on),
        config_(config),
        class_names_(std::move(class_names)) {
    trainer_.emplace(parameters(model_), config.train_segment,
                     layer_decay(*model_.backbone, pretrained ? config.dense.layer_decay : 1));
  }

  Scalars step(const Batch& batch, int64_t step, Rng& rng) override {
    const Var logits = classes_last(model_(Var(to(batch.images, on_)), {true, &rng}));
    const auto [labels, weights] = targets(batch.masks);
    return learn(cross_entropy(logits, labels, weights, 0), step, [&] {
      ConfusionMatrix confusion(classes());
      confusion.add(argmax(logits.value()), batch.masks, kUnjudged);
      return Scalars{{"accuracy", confusion.pixel_accuracy()}, {"miou", confusion.mean_iou()}};
    });
  }

  std::vector<Picture> pictures(const Batch& test) override {
    constexpr int64_t kColumns = 8;
    const Tensor found = trainer_->with_average([&] { return predict(test.images); });
    return {{"segmentation", masks_png(test.images, test.masks, found, std::min(kColumns, test.images.dim(0)))}};
  }

  Figures evaluate(const Dataset& test) override {
    constexpr int64_t kBatch = 32;
    ConfusionMatrix confusion(classes());
    trainer_->with_average([&] {
      for_each_batch(test, kBatch, config_.dense.image_size, "test", [&](const Batch& batch, int64_t) {
        confusion.add(predict(batch.images), batch.masks, kUnjudged);
      });
    });
    Figures figures = {{"test mIoU", format_percent(confusion.mean_iou())},
                       {"test pixel accuracy", format_percent(confusion.pixel_accuracy())},
                       {"test images", std::to_string(test.size())}};
    const std::vector<double> each = confusion.iou();
    for (size_t c = 0; c < each.size(); ++c) {
      if (each[c] >= 0)
        figures.emplace_back("IoU " + (c == 0 ? "background" : class_names_[c - 1]), format_percent(each[c]));
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
  std::vector<std::string> class_names_;
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
