// The judge of generated images: a small convolutional classifier learns a data set's classes from scratch.
#include <algorithm>

#include "autograd/codes.h"
#include "autograd/ops.h"
#include "examples/accuracy.h"
#include "examples/model_stage.h"
#include "examples/pictures.h"
#include "examples/run_config.h"
#include "nn/conv_classifier.h"

namespace addp {
namespace {

// A row for each class that was found, of the first `columns` images put there; the rest of a row is white.
Tensor sorted_by_class(const Tensor& images, const Tensor& found, int64_t classes, int64_t columns) {
  const int64_t size = images.numel() / images.dim(0);
  const std::vector<float> pixels = to_vector<float>(images);
  const std::vector<int64_t> labels = to_vector<int64_t>(found);
  std::vector<float> rows;
  for (int64_t c = 0; c < classes; ++c) {
    int64_t put = 0;
    for (size_t i = 0; i < labels.size() && put < columns; ++i) {
      if (labels[i] != c) continue;
      const auto begin = pixels.begin() + static_cast<int64_t>(i) * size;
      rows.insert(rows.end(), begin, begin + size);
      ++put;
    }
    if (put > 0) rows.insert(rows.end(), static_cast<size_t>((columns - put) * size), 1.0f);
  }
  const int64_t count = static_cast<int64_t>(rows.size()) / size;
  return from_vector(rows, {count, images.dim(1), images.dim(2), images.dim(3)});
}

class ClassifierStage : public ModelStage<ConvClassifier> {
 public:
  ClassifierStage(const Config& config, int64_t classes, uint64_t seed, Options on)
      : ModelStage(ConvClassifier(config.classifier, classes, on), on),
        image_size_(config.image_size),
        classes_(classes) {
    initialize(model_, Rng(seed).fork("classifier"));
    trainer_.emplace(parameters(model_), config.train_classifier);
  }

  Scalars step(const Batch& batch, int64_t step, Rng&) override {
    const Tensor labels = to(batch.labels, {DType::i64, on_.device});
    const Var logits = model_(Var(to(batch.images, on_))).logits;
    return learn(cross_entropy(logits, labels, Tensor(), 0), step, [&] {
      return Scalars{{"accuracy", share_equal(argmax(logits.value()), labels)}};
    });
  }

  std::vector<Picture> pictures(const Batch& test) override {
    constexpr int64_t kColumns = 8;
    const Tensor found = trainer_->with_average([&] { return classify(test.images); });
    return {{"classified", grid_png(sorted_by_class(test.images, found, classes_, kColumns), kColumns)}};
  }

  Figures evaluate(const Dataset& test) override {
    return trainer_->with_average(
        [&] { return test_accuracy(test, image_size_, [&](const Tensor& images) { return classify(images); }); });
  }

 private:
  Tensor classify(const Tensor& images) const {
    const NoGrad no_grad;
    return argmax(model_(Var(to(images, on_))).logits.value());
  }

  int64_t image_size_, classes_;
};

}  // namespace

std::unique_ptr<Stage> make_classifier_stage(const Config& config, const TrainOptions& options,
                                             const Dataset& training) {
  return std::make_unique<ClassifierStage>(config, training.classes(), options.common.seed,
                                           network_options(options.common));
}

}  // namespace addp
