#include "examples/dense_pictures.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "data/dataset.h"
#include "data/image.h"

namespace addp {
namespace {

constexpr int64_t kEnlarge = 3;  // so that the lines of boxes are thin

// Hues by the golden ratio: neighbours in number are far apart in colour.
std::array<float, 3> class_colour(int64_t label) {
  const double hue = 6 * std::fmod(0.61803398875 * static_cast<double>(label), 1.0);
  std::array<float, 3> colour;
  for (int c = 0; c < 3; ++c) {
    const double distance = std::abs(std::fmod(hue + 2 * c, 6.0) - 3) - 1;
    colour[c] = static_cast<float>((label % 2 ? 1.0 : 0.8) * (0.1 + 0.9 * std::clamp(distance, 0.0, 1.0)));
  }
  return colour;
}

// One image or mask as planes [3, S, S] at place `cell` of a picture [cells, 3, S, S].
void put_planes(const Tensor& picture, int64_t cell, const float* planes) {
  const int64_t each = picture.numel() / picture.dim(0);
  std::copy(planes, planes + each, picture.ptr<float>() + cell * each);
}

void put_mask(const Tensor& picture, int64_t cell, const int64_t* mask) {
  const int64_t plane = picture.dim(2) * picture.dim(3);
  float* out = picture.ptr<float>() + cell * 3 * plane;
  for (int64_t p = 0; p < plane; ++p) {
    const bool is_object = mask[p] > 0 && mask[p] != kUnjudged;
    const std::array<float, 3> colour = is_object ? class_colour(mask[p] - 1) : std::array<float, 3>{};
    for (int64_t c = 0; c < 3; ++c) out[c * plane + p] = colour[static_cast<size_t>(c)];
  }
}

void put_enlarged(const Tensor& picture, int64_t cell, const float* planes, int64_t size) {
  const int64_t side = size * kEnlarge;
  float* out = picture.ptr<float>() + cell * 3 * side * side;
  for (int64_t i = 0; i < 3 * side * side; ++i) {
    const int64_t c = i / (side * side), y = i / side % side / kEnlarge, x = i % side / kEnlarge;
    out[i] = planes[(c * size + y) * size + x];
  }
}

void draw_box(const Tensor& picture, int64_t cell, const ObjectBox& box) {
  const int64_t side = picture.dim(2);
  const auto pixel = [&](double v) { return std::clamp<int64_t>(std::lround(v * kEnlarge), 0, side - 1); };
  const int64_t left = pixel(box.x0), top = pixel(box.y0), right = pixel(box.x1 - 1.0 / kEnlarge),
                bottom = pixel(box.y1 - 1.0 / kEnlarge);
  const std::array<float, 3> colour = class_colour(box.label);
  const auto dot = [&](int64_t y, int64_t x) {
    for (int64_t c = 0; c < 3; ++c) {
      picture.ptr<float>()[((cell * 3 + c) * side + y) * side + x] = colour[static_cast<size_t>(c)];
    }
  };
  for (int64_t x = left; x <= right; ++x) dot(top, x), dot(bottom, x);
  for (int64_t y = top; y <= bottom; ++y) dot(y, left), dot(y, right);
}

}  // namespace

std::string masks_png(const Tensor& images, const Tensor& truth, const Tensor& found, int64_t columns) {
  const int64_t size = images.dim(2), rows = images.dim(0) / columns, plane = size * size;
  check(rows > 0, "masks_png: ", images.dim(0), " images do not fill ", columns, " columns");
  const Tensor picture = zeros({3 * rows * columns, 3, size, size});
  for (int64_t i = 0; i < rows * columns; ++i) {
    const int64_t cell = i / columns * 3 * columns + i % columns;
    put_planes(picture, cell, images.ptr<float>() + i * 3 * plane);
    put_mask(picture, cell + columns, truth.ptr<int64_t>() + i * plane);
    put_mask(picture, cell + 2 * columns, found.ptr<int64_t>() + i * plane);
  }
  return encode_png(image_grid(picture, columns));
}

std::string boxes_png(const Tensor& images, const std::vector<std::vector<ObjectBox>>& truth,
                      const std::vector<std::vector<ObjectBox>>& found, int64_t columns) {
  const int64_t size = images.dim(2), rows = images.dim(0) / columns;
  check(rows > 0, "boxes_png: ", images.dim(0), " images do not fill ", columns, " columns");
  const Tensor picture = zeros({2 * rows * columns, 3, size * kEnlarge, size * kEnlarge});
  for (int64_t i = 0; i < rows * columns; ++i) {
    const int64_t cell = i / columns * 2 * columns + i % columns;
    for (const int64_t line : {0, 1}) {
      put_enlarged(picture, cell + line * columns, images.ptr<float>() + i * 3 * size * size, size);
      for (const ObjectBox& box : (line == 0 ? truth : found)[static_cast<size_t>(i)]) {
        draw_box(picture, cell + line * columns, box);
      }
    }
  }
  return encode_png(image_grid(picture, columns));
}

}  // namespace addp
