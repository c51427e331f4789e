// Looks at every image of a data set before hours are spent on it: `addp data check`.
#pragma once
#include <string>
#include <vector>

#include "data/dataset.h"

namespace addp {

struct DatasetReport {
  std::string name;
  int64_t images = 0;  // that could be read
  std::vector<std::string> class_names;
  std::vector<int64_t> class_counts;   // readable images of each class
  int64_t min_side = 0, max_side = 0;  // of all readable images
  int64_t gray = 0, colour = 0;        // numbers of readable images
  std::vector<Finding> findings;       // empty when all is well
};

// Images with a side shorter than this are reported.
inline constexpr int64_t kTinySide = 8;

// Never throws for what is wrong with the data: a data set that cannot be opened is a finding too. Findings are
// unreadable images (truncated, CMYK, damaged), labels out of range, wrong counts, ignored files, empty classes, tiny
// images, and the rarer kind where gray and coloured images are mixed.
DatasetReport check_dataset(const std::string& spec, Split split);

}  // namespace addp
