// Samples in memory, and the check of their labels.
#include "data/memory_dataset.h"

#include <algorithm>

namespace addp {

void MemoryDataset::append(const std::string& file, const std::vector<uint8_t>& pixels,
                           const std::vector<uint8_t>& labels) {
  check(pixels.size() == labels.size() * static_cast<size_t>(height * width * channels), file, ": ", labels.size(),
        " labels do not fit ", pixels.size(), " bytes of images");
  parts_.push_back({file, size()});
  pixels_.insert(pixels_.end(), pixels.begin(), pixels.end());
  labels_.insert(labels_.end(), labels.begin(), labels.end());
}

Sample MemoryDataset::read(int64_t index) const {
  check(index >= 0 && index < size(), name, ": there is no sample ", index, " among ", size());
  const int64_t bytes = height * width * channels;
  const auto begin = pixels_.begin() + index * bytes;
  return {{height, width, channels, {begin, begin + bytes}}, labels_[index]};
}

std::string MemoryDataset::where(int64_t index) const {
  const auto after =
      std::upper_bound(parts_.begin(), parts_.end(), index, [](int64_t i, const Part& part) { return i < part.begin; });
  const Part& part = *(after - 1);
  return concat_text(part.file, ", image ", index - part.begin);
}

void check_labels(const std::string& file, const std::vector<uint8_t>& labels, int64_t classes) {
  const auto bad = [&](uint8_t label) { return label >= classes; };
  const auto first = std::find_if(labels.begin(), labels.end(), bad);
  if (first == labels.end()) return;
  fail(ErrorKind::data, file, ": record ", first - labels.begin(), " has label ", int{*first}, ", 0 to ", classes - 1,
       " are expected (", std::count_if(labels.begin(), labels.end(), bad), " such records)");
}

}  // namespace addp
