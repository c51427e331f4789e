// The order of samples, their preparation, and the thread that works ahead.
#include "data/loader.h"

#include <algorithm>
#include <numeric>

#include "tensor/random.h"

namespace addp {

Batch empty_batch(const Dataset& dataset, int64_t count, int64_t size) {
  const Options integers = {DType::i64, Device::cpu};
  Batch batch{empty({count, 3, size, size}), empty({count}, integers)};
  if (dataset.has_masks) batch.masks = empty({count, size, size}, integers);
  if (dataset.has_boxes) batch.boxes.resize(static_cast<size_t>(count));
  return batch;
}

void put_sample(Batch& batch, int64_t i, Sample sample, const Augmentation& augmentation, Rng& rng) {
  const int64_t size = batch.images.dim(2), height = sample.image.height, width = sample.image.width;
  const Placement placement =
      prepare_image(std::move(sample.image), size, augmentation, rng, batch.images.ptr<float>() + i * 3 * size * size);
  batch.labels.ptr<int64_t>()[i] = sample.label;
  if (batch.masks.defined()) {
    place_mask(sample.mask, height, width, placement, size, batch.masks.ptr<int64_t>() + i * size * size);
  }
  if (!batch.boxes.empty()) batch.boxes[static_cast<size_t>(i)] = place_boxes(sample.boxes, placement, size);
}

BatchMaker::BatchMaker(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options)
    : dataset_(std::move(dataset)), options_(options) {
  const int64_t n = dataset_->size(), batch = options_.batch_size;
  check_as(ErrorKind::usage, batch > 0 && options_.image_size > 0, "loader: batch size ", batch, " and image size ",
           options_.image_size, " must be positive");
  check_as(ErrorKind::data, n >= (options_.drop_last ? batch : 1), dataset_->name, ": has ", n,
           " images, a batch needs ", batch, " (use a smaller batch)");
  steps_per_epoch_ = options_.drop_last ? n / batch : (n + batch - 1) / batch;
}

Batch BatchMaker::make(int64_t step) {
  check(step >= 0, "loader: steps begin at 0, found ", step);
  const int64_t epoch = step / steps_per_epoch_, size = options_.image_size;
  if (order_epoch_ != epoch) {
    Rng rng = Rng(options_.seed).fork("order").fork(static_cast<uint64_t>(epoch));
    if (options_.shuffle) {
      order_ = permutation(dataset_->size(), rng);
    } else {
      order_.resize(dataset_->size());
      std::iota(order_.begin(), order_.end(), 0);
    }
    order_epoch_ = epoch;
  }
  const int64_t begin = step % steps_per_epoch_ * options_.batch_size;
  const int64_t count = std::min(options_.batch_size, dataset_->size() - begin);
  Batch batch = empty_batch(*dataset_, count, size);
  batch.step = step, batch.epoch = epoch;
  const Rng epoch_rng = Rng(options_.seed).fork("augmentation").fork(static_cast<uint64_t>(epoch));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = order_[begin + i];
    Rng rng = epoch_rng.fork(static_cast<uint64_t>(index));
    put_sample(batch, i, dataset_->read(index), options_.augmentation, rng);
  }
  return batch;
}

Loader::Loader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options, int64_t first_step)
    : maker_(std::move(dataset), options), thread_([this, first_step] { run(first_step); }) {}

Loader::~Loader() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Batch Loader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || error_; });
  if (ready_.empty()) std::rethrow_exception(error_);
  Batch batch = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return batch;
}

void Loader::run(int64_t step) {
  try {
    for (;; ++step) {
      Batch batch = maker_.make(step);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return ready_.size() < kAhead || stop_; });
      if (stop_) return;
      ready_.push_back(std::move(batch));
      changed_.notify_all();
    }
  } catch (...) {
    std::lock_guard lock(mutex_);
    error_ = std::current_exception();
    changed_.notify_all();
  }
}

}  // namespace addp
