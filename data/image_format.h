// The structure of PNG and JPEG files, walked without decoding a pixel. The decoder (stb) fills the missing part of a
// truncated file with gray and converts CMYK wrongly, both without a word, so files pass through here first.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace addp {

struct ImageHeader {
  int64_t height = 0, width = 0;
};

inline constexpr int64_t kMaxImagePixels = int64_t{1} << 26;

// Throws Error(data), which opens with `name`, unless bytes are a complete PNG (every chunk's checksum right, IEND
// there) or a complete JPEG (every segment whole, end marker there) in gray or colour and of at most kMaxImagePixels.
ImageHeader inspect_image(std::string_view bytes, const std::string& name);

// True for file names that end in .png, .jpg or .jpeg, in any case.
bool has_image_suffix(std::string_view name);

}  // namespace addp
