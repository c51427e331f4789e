// Pictures of dense labels: class masks in colour, boxes drawn on images.
#pragma once
#include <string>
#include <vector>

#include "tensor/boxes.h"
#include "tensor/tensor.h"

namespace addp {

// Columns of an image, its true mask, and the mask that was found; classes have colours, background and what is not
// judged are black. images: [N, 3, S, S] in [0, 1]; truth, found: [N, S, S] i64.
std::string masks_png(const Tensor& images, const Tensor& truth, const Tensor& found, int64_t columns);

// Columns of an image with its true boxes, above the same with the found ones, enlarged; the colour is the class.
std::string boxes_png(const Tensor& images, const std::vector<std::vector<ObjectBox>>& truth,
                      const std::vector<std::vector<ObjectBox>>& found, int64_t columns);

}  // namespace addp
