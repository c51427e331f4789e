// COCO's average precision of detections, equal to pycocotools (bounding boxes; its matching rules, 10 thresholds of
// intersection over union, 101 points of recall, and its areas).
#pragma once
#include <cstdint>
#include <vector>

#include "tensor/boxes.h"

namespace addp {

struct CocoTruth {
  int64_t image = 0;
  ObjectBox box;
  double area = -1;    // of the object, which decides small, medium or large; negative: the box's
  bool crowd = false;  // a group: detections in it are neither right nor wrong
};

struct CocoDetection {
  int64_t image = 0;
  ObjectBox box;
  double score = 0;
};

// pycocotools' twelve figures; -1 where there is nothing to find. small: below 32^2 pixels, large: above 96^2.
struct CocoScores {
  double ap = -1, ap50 = -1, ap75 = -1;                 // at most 100 detections an image
  double ap_small = -1, ap_medium = -1, ap_large = -1;  // the same
  double ar1 = -1, ar10 = -1, ar100 = -1;               // recall with at most 1, 10, 100 detections
  double ar_small = -1, ar_medium = -1, ar_large = -1;  // the same as ar100
};

CocoScores coco_evaluate(const std::vector<CocoTruth>& truths, const std::vector<CocoDetection>& detections);

// Intersection over union; with `crowd`, over the first box alone.
double box_iou(const ObjectBox& a, const ObjectBox& b, bool crowd = false);

}  // namespace addp
