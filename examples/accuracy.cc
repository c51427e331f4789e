#include "examples/accuracy.h"

#include "examples/batches.h"
#include "examples/progress.h"

namespace addp {

int64_t count_equal(const Tensor& a, const Tensor& b) {
  const std::vector<int64_t> x = to_vector<int64_t>(a), y = to_vector<int64_t>(b);
  check(x.size() == y.size(), "count_equal: ", a.shape(), " and ", b.shape(), " are not of one size");
  int64_t count = 0;
  for (size_t i = 0; i < x.size(); ++i) count += x[i] == y[i];
  return count;
}

double share_equal(const Tensor& a, const Tensor& b) {
  return static_cast<double>(count_equal(a, b)) / static_cast<double>(a.numel());
}

Figures test_accuracy(const Dataset& test, int64_t image_size, const std::function<Tensor(const Tensor&)>& classify) {
  constexpr int64_t kBatch = 100;
  int64_t right = 0;
  for_each_batch(test, kBatch, image_size, "test",
                 [&](const Batch& batch, int64_t) { right += count_equal(classify(batch.images), batch.labels); });
  return {{"test accuracy", format_percent(static_cast<double>(right) / static_cast<double>(test.size()))},
          {"test images", std::to_string(test.size())}};
}

}  // namespace addp
