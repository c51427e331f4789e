#include "nn/boxes.h"

#include <algorithm>

#include "nn/coco_eval.h"

namespace addp {

std::vector<Detection> suppress(std::vector<Detection> detections, double max_iou, int64_t most) {
  std::stable_sort(detections.begin(), detections.end(),
                   [](const Detection& a, const Detection& b) { return a.score > b.score; });
  std::vector<Detection> kept;
  for (const Detection& candidate : detections) {
    if (static_cast<int64_t>(kept.size()) == most) break;
    const auto covers = [&](const Detection& other) {
      return other.box.label == candidate.box.label && box_iou(other.box, candidate.box) > max_iou;
    };
    if (std::none_of(kept.begin(), kept.end(), covers)) kept.push_back(candidate);
  }
  return kept;
}

}  // namespace addp
