// Shape: the extents of a tensor, outermost first; rank 0 is a scalar.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <vector>

namespace addp {

struct Shape : std::vector<int64_t> {
  using std::vector<int64_t>::vector;

  // Number of elements; 1 for a scalar. Throws when the product overflows int64 or an extent is negative.
  int64_t numel() const;
  // Extent of an axis; negative axes count from the end. Throws when there is no such axis.
  int64_t dim(int64_t axis) const;
};

std::ostream& operator<<(std::ostream& out, const Shape& shape);  // [2, 3, 8]

}  // namespace addp
