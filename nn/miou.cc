#include "nn/miou.h"

namespace addp {

void ConfusionMatrix::add(const Tensor& found, const Tensor& truth, int64_t unjudged) {
  check(found.shape() == truth.shape(), "confusion matrix: found and truth must have one shape, found ", found.shape(),
        " and ", truth.shape());
  const std::vector<int64_t> f = to_vector<int64_t>(found), t = to_vector<int64_t>(truth);
  for (size_t i = 0; i < t.size(); ++i) {
    if (t[i] == unjudged) continue;
    check(f[i] >= 0 && f[i] < classes_ && t[i] >= 0 && t[i] < classes_, "confusion matrix: class ", f[i], " or ", t[i],
          " is not among ", classes_);
    ++counts_[static_cast<size_t>(t[i] * classes_ + f[i])];
  }
}

std::vector<double> ConfusionMatrix::iou() const {
  std::vector<double> result;
  for (int64_t c = 0; c < classes_; ++c) {
    int64_t either = -counts_[static_cast<size_t>(c * classes_ + c)];  // counted in its row and in its column
    for (int64_t k = 0; k < classes_; ++k) {
      either += counts_[static_cast<size_t>(c * classes_ + k)] + counts_[static_cast<size_t>(k * classes_ + c)];
    }
    const auto both = static_cast<double>(counts_[static_cast<size_t>(c * classes_ + c)]);
    result.push_back(either > 0 ? both / static_cast<double>(either) : -1);
  }
  return result;
}

double ConfusionMatrix::mean_iou() const {
  double sum = 0;
  int64_t present = 0;
  for (double value : iou()) {
    if (value < 0) continue;
    sum += value;
    ++present;
  }
  return present > 0 ? sum / static_cast<double>(present) : 0;
}

double ConfusionMatrix::pixel_accuracy() const {
  int64_t right = 0, all = 0;
  for (int64_t i = 0; i < classes_ * classes_; ++i) {
    all += counts_[static_cast<size_t>(i)];
    if (i / classes_ == i % classes_) right += counts_[static_cast<size_t>(i)];
  }
  return all > 0 ? static_cast<double>(right) / static_cast<double>(all) : 0;
}

}  // namespace addp
