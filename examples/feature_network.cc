#include "examples/feature_network.h"

#include <filesystem>

#include "autograd/ops.h"
#include "examples/frozen.h"
#include "nn/conv_classifier.h"
#include "nn/inception.h"
#include "tensor/safetensors.h"

namespace addp {
namespace {

class ClassifierNetwork : public FeatureNetwork {
 public:
  ClassifierNetwork(const std::string& folder, const RunConfig& run, const StateDict& weights, int64_t classes,
                    Options on)
      : on_(on),
        name_(concat_text("classifier ", folder, ", trained on ", run.data)),
        data_(run.data),
        model_(run.config.classifier, classes, on) {
    load_state_dict(model_, weights, {weights_file(folder)});
    set_trainable(model_, false);
  }

  std::string name() const override { return name_; }
  std::string data() const override { return data_; }
  ImageFeatures operator()(const Tensor& images) const override {
    const NoGrad no_grad;
    const auto found = model_(Var(to(images, on_)));
    return {to(found.features.value(), Options()), to(found.logits.value(), Options())};
  }

 private:
  Options on_;
  std::string name_, data_;
  ConvClassifier model_;
};

std::unique_ptr<FeatureNetwork> open_classifier(const std::string& folder, Options on) {
  const RunConfig run = read_run_config(folder);
  check_as(ErrorKind::usage, run.stage == "classifier", "--features ", folder, ": is a run of stage ", run.stage,
           ", expected one of `addp train classifier`");
  const std::string file = weights_file(folder);
  const StateDict weights = read_safetensors(file).tensors;
  const auto head = weights.find("head.weight");  // the number of classes was the data set's
  check_as(ErrorKind::checkpoint, head != weights.end() && head->second.rank() == 2, file,
           ": has no matrix head.weight; is it a classifier's?");
  return std::make_unique<ClassifierNetwork>(folder, run, weights, head->second.dim(0), on);
}

class InceptionNetwork : public FeatureNetwork {
 public:
  InceptionNetwork(const std::string& file, Options on) : name_("InceptionV3 " + file), model_(on) {
    load_inception(model_, file);
  }

  std::string name() const override { return name_; }
  ImageFeatures operator()(const Tensor& images) const override {
    const auto found = model_(images);
    return {to(found.features, Options()), to(found.logits, Options())};
  }

 private:
  std::string name_;
  InceptionV3 model_;
};

}  // namespace

std::unique_ptr<FeatureNetwork> open_feature_network(const std::string& path, Options options) {
  check_as(ErrorKind::usage, !path.empty(),
           "--features is missing: the run folder of a classifier (`addp train classifier --run RUN --data DATA`), or "
           "a file with InceptionV3's weights (weights-inception-2015-12-05-6726825d.pth of torch-fidelity)");
  if (std::filesystem::is_directory(path)) return open_classifier(path, options);
  check_as(ErrorKind::usage, std::filesystem::exists(path), "--features ", path, ": no such run folder or file");
  return std::make_unique<InceptionNetwork>(path, options);
}

void FeatureCollector::add(const Tensor& images) {
  const ImageFeatures found = network_(images);
  features_.emplace_back(found.features);
  logits_.emplace_back(found.logits);
}

ImageFeatures FeatureCollector::all() const {
  const NoGrad no_grad;
  return {concat(features_, 0).value(), concat(logits_, 0).value()};
}

}  // namespace addp
