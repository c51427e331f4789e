// What the tests of images and data sets share: pictures to write, and the check that bad data is refused.
#pragma once
#include <doctest/doctest.h>
#include <stb/stb_image_write.h>

#include <functional>
#include <string>
#include <vector>

#include "data/image.h"
#include "tensor/random.h"

namespace addp {

// f must throw Error(data) whose message has every one of the parts.
inline void check_refused(const std::function<void()>& f, const std::vector<std::string>& parts) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::data);
    for (const std::string& part : parts) {
      INFO("message: ", error.what(), "  expected in it: ", part);
      CHECK(std::string(error.what()).find(part) != std::string::npos);
    }
    return;
  }
  INFO("expected: ", parts.back());
  FAIL_CHECK("nothing was thrown");
}

// Random pixels.
inline Image make_image(int64_t height, int64_t width, int64_t channels, int64_t seed = 0) {
  Image image{height, width, channels, std::vector<uint8_t>(height * width * channels)};
  Rng rng(seed);
  for (uint8_t& pixel : image.pixels) pixel = static_cast<uint8_t>(rng.below(256));
  return image;
}

inline std::string encode_jpeg(const Image& image) {
  std::string bytes;
  stbi_write_jpg_to_func(
      [](void* to, void* data, int n) { static_cast<std::string*>(to)->append(static_cast<char*>(data), n); }, &bytes,
      static_cast<int>(image.width), static_cast<int>(image.height), static_cast<int>(image.channels),
      image.pixels.data(), 90);
  return bytes;
}

}  // namespace addp
