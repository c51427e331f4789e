// Subsets keep the names and the remarks of the whole.
#include "data/subset.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/random.h"

namespace addp {

Subset::Subset(std::shared_ptr<const Dataset> all, std::vector<int64_t> indices)
    : all_(std::move(all)), indices_(std::move(indices)) {
  for (int64_t index : indices_) {
    check(index >= 0 && index < all_->size(), all_->name, ": there is no sample ", index, " among ", all_->size());
  }
  name = all_->name;
  class_names = all_->class_names;
  has_masks = all_->has_masks;
  has_boxes = all_->has_boxes;
  remarks = all_->remarks;
}

int64_t Subset::at(int64_t index) const {
  check(index >= 0 && index < size(), name, ": there is no sample ", index, " in a subset of ", size());
  return indices_[index];
}

std::shared_ptr<const Dataset> first_images(std::shared_ptr<const Dataset> all, int64_t count) {
  if (count >= all->size()) return all;
  std::vector<int64_t> indices(static_cast<size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  return std::make_shared<Subset>(std::move(all), std::move(indices));
}

std::shared_ptr<const Dataset> balanced_subset(std::shared_ptr<const Dataset> all, double percent, uint64_t seed) {
  check_as(ErrorKind::usage, percent > 0 && percent <= 100, "labels: a share of ", percent,
           " % is asked for; more than 0 and at most 100 is expected");
  if (percent == 100) return all;
  std::vector<std::vector<int64_t>> of_class(static_cast<size_t>(all->classes()));
  for (int64_t i = 0; i < all->size(); ++i) of_class.at(static_cast<size_t>(all->label(i))).push_back(i);
  std::vector<int64_t> chosen;
  for (size_t c = 0; c < of_class.size(); ++c) {
    const int64_t n = static_cast<int64_t>(of_class[c].size());
    if (n == 0) continue;
    Rng rng = Rng(seed).fork("labels").fork(static_cast<uint64_t>(c));
    const std::vector<int64_t> order = permutation(n, rng);
    const int64_t count = std::max<int64_t>(1, std::llround(static_cast<double>(n) * percent / 100));
    for (int64_t k = 0; k < count; ++k) chosen.push_back(of_class[c][static_cast<size_t>(order[k])]);
  }
  std::sort(chosen.begin(), chosen.end());
  return std::make_shared<Subset>(std::move(all), std::move(chosen));
}

}  // namespace addp
