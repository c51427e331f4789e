// A part of a data set, given by indices; and the parts that experiments with few labels use.
#pragma once
#include "data/dataset.h"

namespace addp {

class Subset : public Dataset {
 public:
  // Throws unless all indices lie in the data set.
  Subset(std::shared_ptr<const Dataset> all, std::vector<int64_t> indices);

  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
  Sample read(int64_t index) const override { return all_->read(at(index)); }
  int64_t label(int64_t index) const override { return all_->label(at(index)); }
  std::string where(int64_t index) const override { return all_->where(at(index)); }
  const std::vector<int64_t>& indices() const { return indices_; }

 private:
  int64_t at(int64_t index) const;

  std::shared_ptr<const Dataset> all_;
  std::vector<int64_t> indices_;
};

// The first `count` images, or all where there are fewer.
std::shared_ptr<const Dataset> first_images(std::shared_ptr<const Dataset> all, int64_t count);

// `percent` of every class's images, rounded, at least one: which ones follows from the seed. In the data set's order;
// what a seed chooses for a smaller percentage is part of what it chooses for a larger one.
std::shared_ptr<const Dataset> balanced_subset(std::shared_ptr<const Dataset> all, double percent, uint64_t seed);

}  // namespace addp
