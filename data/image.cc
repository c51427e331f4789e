// Decoding and encoding through stb, and the layouts: interleaved bytes in images, planes of floats in tensors.
#include "data/image.h"

#include <stb/stb_image.h>
#include <stb/stb_image_write.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "data/image_format.h"
#include "tensor/files.h"

namespace addp {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 28;

uint8_t to_byte(float value) {
  if (!(value > 0)) return 0;  // NaN as well
  return static_cast<uint8_t>(std::lround(std::min(value, 1.0f) * 255.0f));
}

// Puts a picture of planes [C, H, W] into the image with its upper left corner at (top, left).
void place(Image& image, int64_t top, int64_t left, const float* planes, int64_t height, int64_t width) {
  for (int64_t c = 0; c < image.channels; ++c) {
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        const int64_t pixel = (top + y) * image.width + left + x;
        image.pixels[pixel * image.channels + c] = to_byte(planes[(c * height + y) * width + x]);
      }
    }
  }
}

}  // namespace

Image decode_image(std::string_view bytes, const std::string& name) {
  check_as(ErrorKind::data, static_cast<int64_t>(bytes.size()) <= kMaxFileBytes, name, ": is larger than the ",
           kMaxFileBytes, " bytes that are accepted");
  const ImageHeader header = inspect_image(bytes, name);
  const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
  const int length = static_cast<int>(bytes.size());
  int width = 0, height = 0, channels = 0;
  const bool known = stbi_info_from_memory(data, length, &width, &height, &channels);
  check_as(ErrorKind::data, known, name, ": cannot be decoded (", stbi_failure_reason(), ")");
  const int wanted = channels <= 2 ? 1 : 3;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(data, length, &width, &height, &channels, wanted), stbi_image_free);
  check_as(ErrorKind::data, pixels != nullptr, name, ": cannot be decoded (", stbi_failure_reason(), ")");
  check_as(ErrorKind::data, width == header.width && height == header.height, name,
           ": is damaged (it states two different sizes)");
  return {height, width, wanted, {pixels.get(), pixels.get() + int64_t{height} * width * wanted}};
}

Image read_image(const std::string& path) {
  return decode_image(read_file(path, ErrorKind::data, kMaxFileBytes), path);
}

std::string encode_png(const Image& image) {
  const int64_t h = image.height, w = image.width, c = image.channels;
  check(h > 0 && w > 0 && (c == 1 || c == 3), "encode_png: an image of 1 or 3 channels is expected, found ", w, "x", h,
        " with ", c, " channels");
  check(w <= kMaxImagePixels / h, "encode_png: ", w, "x", h, " is more than ", kMaxImagePixels, " pixels");
  check(static_cast<int64_t>(image.pixels.size()) == h * w * c, "encode_png: ", w, "x", h, "x", c, " needs ", h * w * c,
        " bytes, found ", image.pixels.size());
  std::string png;
  const auto append = [](void* context, void* data, int size) {
    static_cast<std::string*>(context)->append(static_cast<const char*>(data), static_cast<size_t>(size));
  };
  const int ok = stbi_write_png_to_func(append, &png, static_cast<int>(w), static_cast<int>(h), static_cast<int>(c),
                                        image.pixels.data(), static_cast<int>(w * c));
  check(ok != 0, "encode_png: out of memory for ", w, "x", h, " pixels");
  return png;
}

void write_png(const std::string& path, const Image& image) { write_file_atomically(path, encode_png(image)); }

Image to_image(const Tensor& x) {
  check(x.rank() == 3 && (x.dim(0) == 1 || x.dim(0) == 3), "to_image: [3, H, W] or [1, H, W] is expected, x is ",
        x.shape());
  Image image{x.dim(1), x.dim(2), x.dim(0), std::vector<uint8_t>(x.numel())};
  place(image, 0, 0, to_vector<float>(x).data(), image.height, image.width);
  return image;
}

Tensor to_tensor(const Image& image) {
  const int64_t plane = image.height * image.width;
  check(image.channels == 1 || image.channels == 3, "to_tensor: 1 or 3 channels are expected, found ", image.channels);
  Tensor x = empty({3, image.height, image.width});
  float* out = x.ptr<float>();
  for (int64_t c = 0; c < 3; ++c) {
    const int64_t source = image.channels == 3 ? c : 0;
    for (int64_t i = 0; i < plane; ++i) out[c * plane + i] = image.pixels[i * image.channels + source] / 255.0f;
  }
  return x;
}

Image image_grid(const Tensor& images, int64_t columns, int64_t padding) {
  check(images.rank() == 4 && images.dim(0) > 0 && (images.dim(1) == 1 || images.dim(1) == 3),
        "image_grid: [N, 3, H, W] or [N, 1, H, W] is expected, images are ", images.shape());
  check(columns > 0 && padding >= 0, "image_grid: columns must be positive and padding not negative, found ", columns,
        " and ", padding);
  const int64_t n = images.dim(0), c = images.dim(1), h = images.dim(2), w = images.dim(3);
  columns = std::min(columns, n);
  const int64_t rows = (n + columns - 1) / columns;
  Image grid{rows * (h + padding) + padding, columns * (w + padding) + padding, c, {}};
  grid.pixels.assign(grid.height * grid.width * c, 255);
  const std::vector<float> values = to_vector<float>(images);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t top = padding + i / columns * (h + padding), left = padding + i % columns * (w + padding);
    place(grid, top, left, values.data() + i * c * h * w, h, w);
  }
  return grid;
}

}  // namespace addp
