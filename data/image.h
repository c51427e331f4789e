// Images of 8 bits a channel: reading PNG and JPEG files, writing PNG, conversion from and to tensors, grids to look
// at. Reading trusts no file: a picture that is returned was complete. Resizing and cropping live in data/augment.h.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace addp {

// Row by row from the top, channels interleaved; 1 (gray) or 3 (RGB) channels.
struct Image {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;
};

// Gray files give 1 channel, all others 3; transparency is dropped, 16 bits become 8. Throws Error(data), which names
// the file, when it is missing, no PNG or JPEG, truncated, damaged, CMYK, or of more than 2^26 pixels.
Image read_image(const std::string& path);
// The same for bytes in memory; `name` stands for the file in messages.
Image decode_image(std::string_view bytes, const std::string& name);

// The bytes of a PNG file. Throws when the image is empty or its fields disagree.
std::string encode_png(const Image& image);
// Written atomically (tensor/files.h): a killed run leaves the old picture or the new one.
void write_png(const std::string& path, const Image& image);

// x: [C, H, W] in [0, 1], C is 1 or 3, f32 or f64, any device. Values outside are clamped, NaN becomes 0.
Image to_image(const Tensor& x);
// [3, H, W] f32 in [0, 1]; gray is repeated.
Tensor to_tensor(const Image& image);

// images: [N, C, H, W] in [0, 1], laid out row by row in `columns` columns with `padding` white pixels around each.
Image image_grid(const Tensor& images, int64_t columns, int64_t padding = 2);

}  // namespace addp
