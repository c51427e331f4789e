// Boxes that a detector found.
#pragma once
#include <vector>

#include "tensor/boxes.h"

namespace addp {

struct Detection {
  ObjectBox box;
  double score = 0;
};

// Non-maximum suppression within each class: by falling score, a box goes when it overlaps a kept one by more than
// max_iou. At most `most` are kept, the best first; equal scores keep their order.
std::vector<Detection> suppress(std::vector<Detection> detections, double max_iou, int64_t most);

}  // namespace addp
