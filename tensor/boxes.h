// Boxes around objects, in pixels: one type for data sets, detector and evaluator.
#pragma once
#include <cstdint>

namespace addp {

struct ObjectBox {
  double x0 = 0, y0 = 0, x1 = 0, y1 = 0;  // left, top, right, bottom edge: a single pixel at the origin is 0, 0, 1, 1
  int64_t label = 0;                      // in [0, classes)

  double area() const { return (x1 - x0) * (y1 - y0); }
};

}  // namespace addp
