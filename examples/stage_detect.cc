// Object detection on a pre-trained encoder, or from scratch (--encoder none): FCOS on a simple feature pyramid.
#include <algorithm>
#include <cstdio>

#include "addp/dense.h"
#include "autograd/ops.h"
#include "examples/batches.h"
#include "examples/dense_pictures.h"
#include "examples/encoder_of_run.h"
#include "examples/model_stage.h"
#include "examples/progress.h"
#include "examples/run_config.h"
#include "nn/coco_eval.h"

namespace addp {
namespace {

class DetectStage : public ModelStage<Detector> {
 public:
  DetectStage(const Config& config, std::unique_ptr<Backbone> backbone, int64_t classes, bool pretrained, uint64_t seed,
              Options on)
      : ModelStage(Detector(std::move(backbone), classes, config.dense.head_width, Rng(seed), on), on),
        config_(config) {
    trainer_.emplace(parameters(model_), config.train_detect,
                     layer_decay(*model_.backbone, pretrained ? config.dense.layer_decay : 1));
  }

  Scalars step(const Batch& batch, int64_t step, Rng& rng) override {
    const FcosLosses losses = model_.head.loss(model_(Var(to(batch.images, on_)), {true, &rng}), batch.boxes);
    return learn(losses.total, step, [&] {
      return Scalars{{"classes", losses.classes}, {"boxes", losses.boxes}, {"centreness", losses.centreness}};
    });
  }

  // Found boxes that are more likely right than not.
  std::vector<Picture> pictures(const Batch& test) override {
    constexpr int64_t kColumns = 4, kImages = 12;
    constexpr double kShown = 0.4;
    const int64_t count = std::min(kImages, test.images.dim(0)), side = test.images.dim(2);
    const Tensor images = test.images.view(0, {count, 3, side, side});
    std::vector<std::vector<ObjectBox>> shown;
    for (const auto& detections : trainer_->with_average([&] { return predict(images); })) {
      shown.emplace_back();
      for (const Detection& d : detections) {
        if (d.score >= kShown) shown.back().push_back(d.box);
      }
    }
    return {{"detection", boxes_png(images, test.boxes, shown, std::min(kColumns, count))}};
  }

  Figures evaluate(const Dataset& test) override {
    constexpr int64_t kBatch = 32;
    std::vector<CocoTruth> truths;
    std::vector<CocoDetection> found;
    trainer_->with_average([&] {
      for_each_batch(test, kBatch, config_.dense.image_size, "test", [&](const Batch& batch, int64_t begin) {
        const auto detections = predict(batch.images);
        for (size_t i = 0; i < detections.size(); ++i) {
          const int64_t image = begin + static_cast<int64_t>(i);
          for (const ObjectBox& box : batch.boxes[i]) truths.push_back({image, box});
          for (const Detection& d : detections[i]) found.push_back({image, d.box, d.score});
        }
      });
    });
    const CocoScores s = coco_evaluate(truths, found);
    return {{"test AP", text(s.ap)},
            {"test AP50", text(s.ap50)},
            {"test AP75", text(s.ap75)},
            {"test AP small", text(s.ap_small)},
            {"test AP medium", text(s.ap_medium)},
            {"test AP large", text(s.ap_large)},
            {"test AR100", text(s.ar100)},
            {"test images", std::to_string(test.size())}};
  }

 private:
  std::vector<std::vector<Detection>> predict(const Tensor& images) const {
    const NoGrad no_grad;
    return model_.head.detections(model_(Var(to(images, on_))), {config_.dense.min_score, config_.dense.max_iou});
  }

  static std::string text(double value) {
    if (value < 0) return "no such objects";
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.1f", 100 * value);
    return buffer;
  }

  Config config_;
};

}  // namespace

std::unique_ptr<Stage> make_detect_stage(const Config& config, const TrainOptions& options, const Dataset& training) {
  check_as(ErrorKind::usage, training.has_boxes, "train detect: ", training.name,
           " has no boxes; use --data scenes or a folder with COCO annotations");
  const Options on = network_options(options.common);
  const uint64_t seed = options.common.seed;
  return std::make_unique<DetectStage>(
      config, backbone_of_run(options.encoder, config, dense_backbone(config), Rng(seed).fork("encoder"), on),
      training.classes(), options.encoder != kNoEncoder, seed, on);
}

}  // namespace addp
