// Boxes as torchvision draws them; resizing in two passes of precomputed weights, along rows and then along columns.
#include "data/augment.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace addp {
namespace {

// The source pixels begin, begin + 1, ... that make up one output pixel; the weights sum to 1.
struct Taps {
  int64_t begin = 0;
  std::vector<float> weights;
};

// Output pixel i of `size` covers [i, i + 1) * length / size of the box's `length` source pixels; a triangle of twice
// that width (at least two source pixels) is centred on it and cut off at the edges of the box.
std::vector<Taps> make_taps(int64_t length, int64_t size) {
  const double scale = static_cast<double>(length) / static_cast<double>(size), support = std::max(scale, 1.0);
  std::vector<Taps> taps(size);
  for (int64_t i = 0; i < size; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const int64_t begin = std::max<int64_t>(0, static_cast<int64_t>(std::floor(centre - support)));
    const int64_t end = std::min<int64_t>(length, static_cast<int64_t>(std::ceil(centre + support)));
    std::vector<double> weights;
    double sum = 0;
    for (int64_t j = begin; j < end; ++j) {
      weights.push_back(std::max(0.0, 1.0 - std::abs(static_cast<double>(j) + 0.5 - centre) / support));
      sum += weights.back();
    }
    taps[i].begin = begin;
    for (double weight : weights) taps[i].weights.push_back(static_cast<float>(weight / sum));
  }
  return taps;
}

// Rows of the box, each resized to `size` pixels: [box.height, size, channels], still in [0, 255].
std::vector<float> resize_rows(const Image& image, const Box& box, int64_t size) {
  const std::vector<Taps> taps = make_taps(box.width, size);
  std::vector<float> rows(box.height * size * image.channels);
  float* out = rows.data();
  for (int64_t y = 0; y < box.height; ++y) {
    const uint8_t* row = image.pixels.data() + ((box.top + y) * image.width + box.left) * image.channels;
    for (const Taps& tap : taps) {
      for (int64_t c = 0; c < image.channels; ++c) {
        float sum = 0;
        for (size_t k = 0; k < tap.weights.size(); ++k) {
          sum += tap.weights[k] * row[(tap.begin + static_cast<int64_t>(k)) * image.channels + c];
        }
        *out++ = sum;
      }
    }
  }
  return rows;
}

}  // namespace

Box centre_box(const Image& image) {
  const int64_t side = std::min(image.height, image.width);
  return {(image.height - side) / 2, (image.width - side) / 2, side, side};
}

Box random_box(const Image& image, const Augmentation& augmentation, Rng& rng) {
  const double area = static_cast<double>(image.height) * static_cast<double>(image.width);
  const double log_min = std::log(augmentation.min_ratio), log_max = std::log(augmentation.max_ratio);
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target =
        area * (augmentation.min_scale + (augmentation.max_scale - augmentation.min_scale) * rng.uniform());
    const double ratio = std::exp(log_min + (log_max - log_min) * rng.uniform());
    const int64_t width = std::lround(std::sqrt(target * ratio)), height = std::lround(std::sqrt(target / ratio));
    if (width < 1 || height < 1 || width > image.width || height > image.height) continue;
    const int64_t top = rng.below(image.height - height + 1);
    return {top, rng.below(image.width - width + 1), height, width};
  }
  const double ratio = static_cast<double>(image.width) / static_cast<double>(image.height);
  int64_t width = image.width, height = image.height;
  if (ratio < augmentation.min_ratio) height = std::lround(static_cast<double>(width) / augmentation.min_ratio);
  if (ratio > augmentation.max_ratio) width = std::lround(static_cast<double>(height) * augmentation.max_ratio);
  height = std::clamp<int64_t>(height, 1, image.height);
  width = std::clamp<int64_t>(width, 1, image.width);
  return {(image.height - height) / 2, (image.width - width) / 2, height, width};
}

Image pad_to(Image image, int64_t size) {
  const int64_t rows = size - image.height, columns = size - image.width;
  const bool close = rows >= 0 && columns >= 0 && rows <= kMaxPadding && columns <= kMaxPadding;
  if (!close || (rows == 0 && columns == 0)) return image;
  Image padded{size, size, image.channels, std::vector<uint8_t>(size * size * image.channels, 0)};
  for (int64_t y = 0; y < image.height; ++y) {
    const auto row = image.pixels.begin() + y * image.width * image.channels;
    std::copy(row, row + image.width * image.channels,
              padded.pixels.begin() + ((rows / 2 + y) * size + columns / 2) * image.channels);
  }
  return padded;
}

void resize_box(const Image& image, const Box& box, int64_t size, bool flip, float* planes) {
  check(size > 0 && box.height > 0 && box.width > 0 && box.top >= 0 && box.left >= 0 &&
            box.top + box.height <= image.height && box.left + box.width <= image.width,
        "resize_box: the box must lie in the image of ", image.width, "x", image.height, ", found ", box.width, "x",
        box.height, " at ", box.left, ",", box.top);
  const std::vector<float> rows = resize_rows(image, box, size);
  const std::vector<Taps> taps = make_taps(box.height, size);
  const int64_t channels = image.channels;
  for (int64_t c = 0; c < 3; ++c) {
    const int64_t source = channels == 3 ? c : 0;
    for (int64_t y = 0; y < size; ++y) {
      for (int64_t x = 0; x < size; ++x) {
        float sum = 0;
        for (size_t k = 0; k < taps[y].weights.size(); ++k) {
          sum += taps[y].weights[k] * rows[((taps[y].begin + static_cast<int64_t>(k)) * size + x) * channels + source];
        }
        planes[(c * size + y) * size + (flip ? size - 1 - x : x)] = std::clamp(sum / 255.0f, 0.0f, 1.0f);
      }
    }
  }
}

void erase_rectangle(int64_t size, Rng& rng, float* planes) {
  constexpr double kMinShare = 0.02, kMaxShare = 1.0 / 3, kMinRatio = 0.3;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double area = static_cast<double>(size * size) * (kMinShare + (kMaxShare - kMinShare) * rng.uniform());
    const double ratio = std::exp(std::log(kMinRatio) * (2 * rng.uniform() - 1));
    const int64_t height = std::lround(std::sqrt(area * ratio)), width = std::lround(std::sqrt(area / ratio));
    if (height < 1 || width < 1 || height >= size || width >= size) continue;
    const int64_t top = rng.below(size - height + 1), left = rng.below(size - width + 1);
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t y = top; y < top + height; ++y) {
        for (int64_t x = left; x < left + width; ++x) {
          planes[(c * size + y) * size + x] = static_cast<float>(rng.uniform());
        }
      }
    }
    return;
  }
}

Placement prepare_image(Image image, int64_t size, const Augmentation& augmentation, Rng& rng, float* planes) {
  const int64_t height = image.height, width = image.width;
  image = pad_to(std::move(image), size);
  const Box box = augmentation.random_crop ? random_box(image, augmentation, rng) : centre_box(image);
  const bool flip = augmentation.flip && rng.uniform() < 0.5;
  resize_box(image, box, size, flip, planes);
  if (augmentation.erasing > 0 && rng.uniform() < augmentation.erasing) erase_rectangle(size, rng, planes);
  const int64_t above = (image.height - height) / 2, before = (image.width - width) / 2;  // padding
  return {{box.top - above, box.left - before, box.height, box.width}, flip};
}

void place_mask(const std::vector<uint8_t>& mask, int64_t height, int64_t width, const Placement& placement,
                int64_t size, int64_t* target) {
  const Box& box = placement.box;
  const auto source = [size](int64_t i, int64_t begin, int64_t extent) {
    return begin + (2 * i + 1) * extent / (2 * size);  // the pixel under the middle of pixel i
  };
  for (int64_t y = 0; y < size; ++y) {
    const int64_t row = source(y, box.top, box.height);
    for (int64_t x = 0; x < size; ++x) {
      const int64_t column = source(placement.flip ? size - 1 - x : x, box.left, box.width);
      const bool inside = row >= 0 && row < height && column >= 0 && column < width;
      target[y * size + x] = inside ? mask[static_cast<size_t>(row * width + column)] : 0;
    }
  }
}

std::vector<ObjectBox> place_boxes(const std::vector<ObjectBox>& boxes, const Placement& placement, int64_t size) {
  const double side = static_cast<double>(size);
  const double across = side / static_cast<double>(placement.box.width);
  const double down = side / static_cast<double>(placement.box.height);
  std::vector<ObjectBox> placed;
  for (ObjectBox box : boxes) {
    const double left = static_cast<double>(placement.box.left), top = static_cast<double>(placement.box.top);
    box.x0 = std::clamp((box.x0 - left) * across, 0.0, side), box.x1 = std::clamp((box.x1 - left) * across, 0.0, side);
    box.y0 = std::clamp((box.y0 - top) * down, 0.0, side), box.y1 = std::clamp((box.y1 - top) * down, 0.0, side);
    if (placement.flip) std::tie(box.x0, box.x1) = std::pair(side - box.x1, side - box.x0);
    if (box.x1 - box.x0 >= 1 && box.y1 - box.y0 >= 1) placed.push_back(box);
  }
  return placed;
}

Tensor normalize(const Tensor& images, const std::array<double, 3>& mean, const std::array<double, 3>& std) {
  check(images.rank() == 4 && images.dim(1) == 3, "normalize: images must be [B, 3, H, W], found ", images.shape());
  const int64_t plane = images.dim(2) * images.dim(3);
  Tensor y = empty_like(images);
  const float* in = images.ptr<float>();
  float* out = y.ptr<float>();
  for (int64_t i = 0; i < images.numel(); ++i) {
    const int64_t c = i / plane % 3;
    out[i] = (in[i] - static_cast<float>(mean[c])) / static_cast<float>(std[c]);
  }
  return y;
}

}  // namespace addp
