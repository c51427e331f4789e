// The networks whose features metrics of images are computed from: the classifier of a run of `train classifier`, or
// InceptionV3 from a file.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "autograd/var.h"

namespace addp {

// What a network says of N images, f32 on the CPU.
struct ImageFeatures {
  Tensor features;  // [N, D]
  Tensor logits;    // [N, V]
};

class FeatureNetwork {
 public:
  virtual ~FeatureNetwork() = default;
  virtual std::string name() const = 0;            // printed with every figure
  virtual std::string data() const { return ""; }  // what it was trained on, as --data takes it; "": unknown
  virtual ImageFeatures operator()(const Tensor& images) const = 0;  // [B, 3, Hi, Wi] in [0, 1], any size and device
};

// path: a run folder of `train classifier`, or a file of InceptionV3's weights (nn/inception.h). Throws Error(usage)
// when it is neither, Error(checkpoint) when weights do not fit.
std::unique_ptr<FeatureNetwork> open_feature_network(const std::string& path, Options options);

// Features of images that come batch by batch.
class FeatureCollector {
 public:
  explicit FeatureCollector(const FeatureNetwork& network) : network_(network) {}
  void add(const Tensor& images);
  ImageFeatures all() const;  // of all that were added, in their order

 private:
  const FeatureNetwork& network_;
  std::vector<Var> features_, logits_;
};

}  // namespace addp
