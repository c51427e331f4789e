// Batches of a data set in random order, prepared ahead by one thread. Batch `step` is a function of the options and
// the step alone, so a run that resumes at a step sees what the uninterrupted run would have seen.
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "data/augment.h"
#include "data/dataset.h"

namespace addp {

struct LoaderOptions {
  int64_t batch_size = 64;
  int64_t image_size = 32;
  uint64_t seed = 0;
  Augmentation augmentation;
  bool shuffle = true;    // a new order each epoch; otherwise the data set's own
  bool drop_last = true;  // leave out an epoch's incomplete batch, else deliver it smaller
};

struct Batch {
  Tensor images;  // [B, 3, image_size, image_size] f32 in [0, 1]
  Tensor labels;  // [B] i64
  int64_t step = 0, epoch = 0;
  Tensor masks = {};                               // [B, image_size, image_size] i64, where the data set has masks
  std::vector<std::vector<ObjectBox>> boxes = {};  // of each image, where the data set has boxes
};

// A batch of `count` images of a data set, to be filled by put_sample.
Batch empty_batch(const Dataset& dataset, int64_t count, int64_t image_size);
// Prepares a sample as image i of a batch, with its label, mask and boxes.
void put_sample(Batch& batch, int64_t i, Sample sample, const Augmentation& augmentation, Rng& rng);

// Makes any batch on demand, without a thread: for evaluation, and the Loader's core. Not for use by several threads.
class BatchMaker {
 public:
  // Throws Error(data) when the data set has not even one batch, Error(usage) for sizes that are not positive.
  BatchMaker(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options);

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  // step = epoch * steps_per_epoch + position. The order of an epoch is a permutation drawn from (seed, epoch), the
  // augmentation of a sample is drawn from (seed, epoch, index). Throws what Dataset::read throws.
  Batch make(int64_t step);

 private:
  std::shared_ptr<const Dataset> dataset_;
  LoaderOptions options_;
  int64_t steps_per_epoch_ = 0;
  int64_t order_epoch_ = -1;  // the epoch that order_ belongs to
  std::vector<int64_t> order_;
};

class Loader {
 public:
  // The first batch delivered is that of first_step; there is no last one.
  Loader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options, int64_t first_step = 0);
  ~Loader();  // stops the thread, after the batch that it is at
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  int64_t steps_per_epoch() const { return maker_.steps_per_epoch(); }
  // The next batch; waits for it. What went wrong in the thread is thrown here, after the batches before it.
  Batch next();

 private:
  void run(int64_t step);

  static constexpr size_t kAhead = 2;  // batches kept ready
  BatchMaker maker_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_;
  std::exception_ptr error_;
  bool stop_ = false;
  std::thread thread_;  // the last member: it starts when all others exist
};

}  // namespace addp
