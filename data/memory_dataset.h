// A data set whose images have one size and lie in memory as a whole: what IDX and CIFAR files become.
#pragma once
#include "data/dataset.h"

namespace addp {

class MemoryDataset : public Dataset {
 public:
  // Appends images of height x width x channels, interleaved, from one file; as many labels.
  void append(const std::string& file, const std::vector<uint8_t>& pixels, const std::vector<uint8_t>& labels);

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  Sample read(int64_t index) const override;
  int64_t label(int64_t index) const override { return labels_.at(static_cast<size_t>(index)); }
  std::string where(int64_t index) const override;

  int64_t height = 0, width = 0, channels = 1;

 private:
  struct Part {
    std::string file;
    int64_t begin;  // index of its first sample
  };
  std::vector<uint8_t> pixels_, labels_;
  std::vector<Part> parts_;
};

// Throws Error(data), which names the file, the first offending record and how many there are, unless every label is
// below classes.
void check_labels(const std::string& file, const std::vector<uint8_t>& labels, int64_t classes);

}  // namespace addp
