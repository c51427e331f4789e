// Mean intersection over union, the measure of semantic segmentation, from counts over all pixels of a data set.
#pragma once
#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace addp {

class ConfusionMatrix {
 public:
  explicit ConfusionMatrix(int64_t classes) : classes_(classes), counts_(static_cast<size_t>(classes * classes), 0) {}

  // Counts pixels. found, truth: i64 of one shape, in [0, classes); pixels whose truth is `unjudged` are left out.
  void add(const Tensor& found, const Tensor& truth, int64_t unjudged);

  // |found and truth| / |found or truth| of each class; -1 for a class that neither has.
  std::vector<double> iou() const;
  double mean_iou() const;        // over the classes that occur; 0 when nothing was counted
  double pixel_accuracy() const;  // share of right pixels; 0 when nothing was counted

 private:
  int64_t classes_;
  std::vector<int64_t> counts_;  // [truth][found]
};

}  // namespace addp
