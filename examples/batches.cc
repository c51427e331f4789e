// Batches for the commands, over data/.
#include "examples/batches.h"

#include <algorithm>

#include "data/subset.h"
#include "examples/progress.h"

namespace addp {
namespace {

Batch read_strided(const Dataset& data, int64_t begin, int64_t count, int64_t stride, int64_t size) {
  Batch batch = empty_batch(data, count, size);
  Rng unused(0);
  for (int64_t i = 0; i < count; ++i) put_sample(batch, i, data.read(begin + i * stride), Augmentation(), unused);
  return batch;
}

}  // namespace

std::shared_ptr<const Dataset> open_training_data(const std::string& spec, int64_t image_size, int64_t limit) {
  std::shared_ptr<const Dataset> data = open_dataset(spec, Split::train, image_size);
  return limit > 0 ? first_images(std::move(data), limit) : data;
}

Batch read_batch(const Dataset& data, int64_t begin, int64_t end, int64_t image_size) {
  return read_strided(data, begin, end - begin, 1, image_size);
}

void for_each_batch(const Dataset& data, int64_t size, int64_t image_size, const char* name,
                    const std::function<void(const Batch& batch, int64_t begin)>& f) {
  Progress progress(name, 0, data.size());
  for (int64_t begin = 0; begin < data.size(); begin += size) {
    const int64_t end = std::min(begin + size, data.size());
    f(read_batch(data, begin, end, image_size), begin);
    progress.update(end, {}, end - begin);
  }
}

Batch test_images(const std::string& spec, int64_t count, int64_t image_size) {
  const auto data = open_dataset(spec, Split::test, image_size);
  check_as(ErrorKind::data, data->size() > 0, spec, ": has no test images (a class needs ten, or a folder test/)");
  count = std::min(count, data->size());
  // An odd stride visits all classes also where labels repeat with an even period.
  int64_t stride = std::max<int64_t>(1, data->size() / count);
  if (stride > 1 && stride % 2 == 0) --stride;
  return read_strided(*data, 0, count, stride, image_size);
}

}  // namespace addp
