// Data sets as the commands use them: a training loader, and batches without randomness for evaluation.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "data/dataset.h"
#include "data/loader.h"

namespace addp {

// The training split, its first `limit` images only when limit > 0. Throws Error(data).
std::shared_ptr<const Dataset> open_training_data(const std::string& spec, int64_t image_size, int64_t limit);

// Images begin..end-1 of a data set in their own order, padded or resized, without augmentation.
Batch read_batch(const Dataset& data, int64_t begin, int64_t end, int64_t image_size);

// f(batch, begin) for each batch of at most `size` images of a data set in its own order, with a line of progress.
void for_each_batch(const Dataset& data, int64_t size, int64_t image_size, const char* name,
                    const std::function<void(const Batch& batch, int64_t begin)>& f);

// `count` images of the test split, spread evenly over it, or all where there are fewer. Throws Error(data) when there
// is none.
Batch test_images(const std::string& spec, int64_t count, int64_t image_size);

}  // namespace addp
