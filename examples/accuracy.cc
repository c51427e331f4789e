#include "examples/accuracy.h"

#include <algorithm>
#include <cstdio>

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

Figures test_accuracy(const Dataset& test, int64_t image_size, const std::function<Tensor(const Tensor&)>& classify) {
  constexpr int64_t kBatch = 100;
  Progress progress("test", 0, test.size());
  int64_t right = 0;
  for (int64_t begin = 0; begin < test.size(); begin += kBatch) {
    const int64_t end = std::min(begin + kBatch, test.size());
    const Batch batch = read_batch(test, begin, end, image_size);
    right += count_equal(classify(batch.images), batch.labels);
    progress.update(end, {}, end - begin);
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", 100 * static_cast<double>(right) / static_cast<double>(test.size()));
  return {{"test accuracy", text}, {"test images", std::to_string(test.size())}};
}

}  // namespace addp
