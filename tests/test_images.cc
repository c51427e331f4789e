// Images: files read back and refused, tensors and grids, and the way from an image of any size to a model's input.
#include <zlib.h>

#include <cmath>

#include "data/augment.h"
#include "data/image_format.h"
#include "tests/pictures.h"
#include "tests/scratch.h"

namespace addp {
namespace {

// The PNG with one byte replaced and the checksum of the chunk at `chunk` made right again.
std::string patch_png(std::string png, size_t chunk, size_t at, char value) {
  png[at] = value;
  const auto* data = reinterpret_cast<const Bytef*>(png.data()) + chunk + 4;
  const size_t length = static_cast<unsigned char>(png[chunk + 3]) + 4u;
  const uLong crc = crc32(0, data, static_cast<uInt>(length));
  for (int i = 0; i < 4; ++i) png[chunk + 4 + length + i] = static_cast<char>(crc >> (24 - 8 * i));
  return png;
}

}  // namespace

TEST_CASE("images: PNG round trip, gray and colour, odd sizes") {
  ScratchFolder folder;
  for (int64_t channels : {1, 3}) {
    const Image image = make_image(7, 13, channels);
    write_png(folder / "a.png", image);
    const Image back = read_image(folder / "a.png");
    CHECK(back.height == 7);
    CHECK(back.width == 13);
    CHECK(back.channels == channels);
    CHECK(back.pixels == image.pixels);
  }
  CHECK_THROWS_AS(encode_png(Image{}), Error);
  CHECK_THROWS_AS(encode_png(Image{2, 2, 3, {1, 2}}), Error);
}

TEST_CASE("images: JPEG is read") {
  Image flat{16, 24, 3, std::vector<uint8_t>(16 * 24 * 3, 200)};
  const Image back = decode_image(encode_jpeg(flat), "flat.jpg");
  CHECK(back.height == 16);
  CHECK(back.width == 24);
  CHECK(back.channels == 3);
  for (uint8_t pixel : back.pixels) REQUIRE(std::abs(pixel - 200) <= 2);
}

TEST_CASE("images: PNG that is cut anywhere, damaged anywhere or absurd is refused by name") {
  const std::string png = encode_png(make_image(5, 6, 3));
  for (size_t length = 1; length < png.size(); ++length) {
    check_refused([&] { decode_image(png.substr(0, length), "cut.png"); }, {"cut.png"});
  }
  check_refused([&] { decode_image(png.substr(0, 60), "cut.png"); }, {"cut.png", "truncated"});
  for (size_t at = 8; at < png.size(); ++at) {
    std::string damaged = png;
    damaged[at] ^= 0x10;
    check_refused([&] { decode_image(damaged, "damaged.png"); }, {"damaged.png"});
  }
  // IHDR lies at byte 8, its width at 16, its height at 20.
  check_refused([&] { decode_image(patch_png(png, 8, 16, 0x7f), "vast.png"); }, {"vast.png", "pixels"});
  check_refused([&] { decode_image(patch_png(png, 8, 19, 0), "flat.png"); }, {"flat.png", "0x5"});
  check_refused([&] { decode_image("", "empty.png"); }, {"empty.png", "empty"});
  check_refused([&] { decode_image("GIF89a", "a.png"); }, {"neither PNG nor JPEG"});
  check_refused([&] { read_image("/nonexistent/a.png"); }, {"/nonexistent/a.png"});
}

TEST_CASE("images: JPEG that is cut anywhere or CMYK is refused by name") {
  const std::string jpeg = encode_jpeg(make_image(16, 16, 3));
  for (size_t length = 1; length < jpeg.size(); ++length) {
    check_refused([&] { decode_image(jpeg.substr(0, length), "cut.jpg"); }, {"cut.jpg"});
  }
  std::string cmyk = jpeg;
  const size_t frame = cmyk.find("\xFF\xC0");
  REQUIRE(frame != std::string::npos);
  cmyk[frame + 9] = 4;
  check_refused([&] { decode_image(cmyk, "print.jpg"); }, {"print.jpg", "CMYK"});
  cmyk[frame + 9] = 2;
  check_refused([&] { decode_image(cmyk, "two.jpg"); }, {"two.jpg", "2 colour components"});
  std::string table = jpeg;
  table[table.find("\xFF\xC4") + 5 + 15] = '\xFF';  // 255 more Huffman codes than there is room for
  check_refused([&] { decode_image(table, "table.jpg"); }, {"table.jpg", "Huffman"});
  check_refused([&] { decode_image("\xFF\xD8\xFF\xD9", "bare.jpg"); }, {"bare.jpg", "without picture data"});
}

TEST_CASE("images: tensors and images, values outside [0, 1] clamped") {
  const Image image = make_image(3, 4, 3);
  const Tensor x = to_tensor(image);
  CHECK(x.shape() == Shape{3, 3, 4});
  CHECK(to_vector<float>(x)[12] == doctest::Approx(image.pixels[1] / 255.0));  // green of the first pixel
  CHECK(to_image(x).pixels == image.pixels);
  const Tensor odd = from_vector<float>({-1, 2, NAN, 0.5f}, {1, 2, 2});
  CHECK(to_image(odd).pixels == std::vector<uint8_t>{0, 255, 0, 128});
  CHECK(to_vector<float>(to_tensor(Image{1, 1, 1, {51}})) == std::vector<float>{0.2f, 0.2f, 0.2f});
  CHECK_THROWS_AS(to_image(zeros({2, 2, 2})), Error);
}

TEST_CASE("images: image grid") {
  const Tensor images = zeros({3, 3, 4, 5});
  images.ptr<float>()[2 * 60] = 1;  // red of the third image's first pixel
  const Image grid = image_grid(images, 2, 1);
  CHECK(grid.height == 2 * 5 + 1);
  CHECK(grid.width == 2 * 6 + 1);
  const auto red = [&](int64_t y, int64_t x) { return int{grid.pixels[(y * grid.width + x) * 3]}; };
  CHECK(red(0, 0) == 255);  // padding
  CHECK(red(1, 1) == 0);
  CHECK(red(6, 1) == 255);
  CHECK(red(6, 2) == 0);
  CHECK(red(6, 7) == 255);  // the empty place
}

TEST_CASE("images: 28x28 is padded to 32x32, not resized") {
  const Image image = make_image(28, 28, 1);
  const Image padded = pad_to(image, 32);
  CHECK(padded.height == 32);
  CHECK(padded.width == 32);
  for (int64_t y = 0; y < 32; ++y) {
    for (int64_t x = 0; x < 32; ++x) {
      const bool border = y < 2 || y >= 30 || x < 2 || x >= 30;
      REQUIRE(padded.pixels[y * 32 + x] == (border ? 0 : image.pixels[(y - 2) * 28 + x - 2]));
    }
  }
  CHECK(pad_to(image, 33).height == 28);
  CHECK(pad_to(make_image(40, 30, 3), 32).height == 40);

  std::vector<float> planes(3 * 32 * 32);
  Rng rng(0);
  prepare_image(image, 32, {}, rng, planes.data());
  for (size_t i = 0; i < planes.size(); ++i) REQUIRE(planes[i] == padded.pixels[i % 1024] / 255.0f);
}

TEST_CASE("images: resizing keeps constants, averages when it shrinks, flips") {
  std::vector<float> planes(3 * 4 * 4);
  Image flat{9, 7, 3, std::vector<uint8_t>(9 * 7 * 3, 102)};
  resize_box(flat, {0, 0, 9, 7}, 4, false, planes.data());
  for (float value : planes) CHECK(value == doctest::Approx(0.4));

  // Stripes of one pixel become gray when reduced by 7; without the wider support they would become black or white.
  Image stripes{28, 28, 1, std::vector<uint8_t>(28 * 28)};
  for (size_t i = 0; i < stripes.pixels.size(); ++i) stripes.pixels[i] = i % 2 ? 255 : 0;
  resize_box(stripes, centre_box(stripes), 4, false, planes.data());
  for (int i : {5, 6, 9, 10}) CHECK(planes[i] == doctest::Approx(0.5).epsilon(0.05));

  // A ramp enlarged by 2, by hand: pixel centres at -0.25, 0.25, 0.75, 1.25 of the source's.
  const Image ramp{2, 2, 1, {0, 200, 0, 200}};
  resize_box(ramp, centre_box(ramp), 4, false, planes.data());
  for (int x = 0; x < 4; ++x) CHECK(planes[x] * 255 == doctest::Approx(std::vector<double>{0, 50, 150, 200}[x]));
  resize_box(ramp, centre_box(ramp), 4, true, planes.data());
  for (int x = 0; x < 4; ++x) CHECK(planes[x] * 255 == doctest::Approx(std::vector<double>{200, 150, 50, 0}[x]));
  CHECK_THROWS_AS(resize_box(ramp, {0, 1, 2, 2}, 4, false, planes.data()), Error);
}

TEST_CASE("images: random boxes lie in the image and keep their ranges") {
  const Image image = make_image(60, 80, 1);
  Augmentation augmentation;
  Rng rng(1);
  double smallest = 1, largest = 0;
  for (int i = 0; i < 2000; ++i) {
    const Box box = random_box(image, augmentation, rng);
    REQUIRE(box.top >= 0);
    REQUIRE(box.left >= 0);
    REQUIRE(box.top + box.height <= 60);
    REQUIRE(box.left + box.width <= 80);
    const double ratio = static_cast<double>(box.width) / box.height, area = box.width * box.height / 4800.0;
    REQUIRE(ratio > 0.75 * 0.95);
    REQUIRE(ratio < 4.0 / 3 * 1.05);
    smallest = std::min(smallest, area), largest = std::max(largest, area);
  }
  CHECK(smallest == doctest::Approx(0.2).epsilon(0.05));
  CHECK(largest > 0.9);
  // No box fits a needle: the fallback is the centre, as square as the range of ratios asks.
  const Box box = random_box(make_image(2, 100, 1), augmentation, rng);
  CHECK(box.height == 2);
  CHECK(box.width == 3);
  CHECK(box.left == 48);
}

TEST_CASE("images: normalisation") {
  const Tensor y = normalize(full({1, 3, 1, 2}, 0.5), {0.5, 0.25, 0}, {1, 0.5, 0.25});
  CHECK(to_vector<float>(y) == std::vector<float>{0, 0, 0.5, 0.5, 2, 2});
}

}  // namespace addp
