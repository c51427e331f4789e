// Drawn shapes: data without files, for tests, lessons and first experiments. A shape is a predicate on the plane, true
// inside; colours, place, size and angle come from the image's own random numbers.
#include <array>
#include <cmath>

#include "data/dataset.h"
#include "tensor/random.h"

namespace addp {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr uint64_t kShapesSeed = 20240517;
constexpr int kSubpixels = 3;  // per pixel and axis, for smooth edges
const std::vector<std::string> kShapeNames = {"circle", "square", "triangle", "star", "ring", "cross", "heart", "moon"};

struct Colour {
  double r, g, b;
};

// A regular polygon with its corners on the unit circle, one of them at the top.
bool in_polygon(double x, double y, int corners) {
  const double sector = 2 * kPi / corners;
  const double angle = std::atan2(x, y) + 2 * kPi;
  const double from_edge_centre = std::fmod(angle, sector) - sector / 2;
  return std::hypot(x, y) * std::cos(from_edge_centre) < std::cos(sector / 2);
}

// Five points; the outline is straight between the points (radius 1) and the notches (radius 0.45).
bool in_star(double x, double y) {
  const double sector = 2 * kPi / 5, notch = 0.45;
  const double angle = std::abs(std::remainder(std::atan2(x, y), sector)), radius = std::hypot(x, y);
  const double px = radius * std::cos(angle), py = radius * std::sin(angle);  // the point lies at (1, 0)
  const double nx = notch * std::cos(sector / 2), ny = notch * std::sin(sector / 2);
  return (nx - 1) * py - ny * (px - 1) > 0;
}

bool in_heart(double x, double y) {
  x *= 1.2, y = 1.2 * y + 0.1;
  const double a = x * x + y * y - 1;
  return a * a * a < x * x * y * y * y;
}

// x to the right, y up, the shape within the unit circle.
bool inside(int64_t shape, double x, double y) {
  const double radius = std::hypot(x, y);
  switch (shape) {
    case 0:
      return radius < 0.9;
    case 1:
      return std::max(std::abs(x), std::abs(y)) < 0.75;
    case 2:
      return in_polygon(x, y, 3);
    case 3:
      return in_star(x, y);
    case 4:
      return radius < 0.95 && radius > 0.55;
    case 5:
      return std::min(std::abs(x), std::abs(y)) < 0.3 && std::max(std::abs(x), std::abs(y)) < 0.95;
    case 6:
      return in_heart(x, y);
    default:
      return radius < 0.95 && std::hypot(x - 0.45, y) > 0.75;
  }
}

// hue in turns, saturation and value in [0, 1].
Colour from_hsv(double hue, double saturation, double value) {
  const auto channel = [&](double shift) {
    const double distance = std::abs(std::fmod(hue + shift, 1.0) * 6 - 3) - 1;
    return value * (1 - saturation * (1 - std::min(1.0, std::max(0.0, distance))));
  };
  return {channel(0), channel(2.0 / 3), channel(1.0 / 3)};
}

class ShapesDataset : public Dataset {
 public:
  ShapesDataset(int64_t count, Split split, int64_t side) : count_(count), split_(split), side_(side) {
    name = "shapes";
    class_names = kShapeNames;
  }
  int64_t size() const override { return count_; }
  int64_t label(int64_t index) const override { return index % classes(); }
  std::string where(int64_t index) const override { return concat_text("shapes, image ", index); }

  Sample read(int64_t index) const override {
    check(index >= 0 && index < count_, "shapes: there is no sample ", index, " among ", count_);
    Rng rng = Rng(kShapesSeed).fork(split_name(split_)).fork(static_cast<uint64_t>(index));
    const auto between = [&](double low, double high) { return low + (high - low) * rng.uniform(); };
    const int64_t shape = label(index);
    const double hue = rng.uniform();
    const Colour colour = from_hsv(hue, between(0.65, 1), between(0.8, 1));
    const Colour ground = from_hsv(hue + between(0.3, 0.7), between(0.2, 0.6), between(0.15, 0.45));
    const double radius = between(0.26, 0.42), angle = between(-0.35, 0.35);
    const double cx = between(radius, 1 - radius), cy = between(radius, 1 - radius);
    const double shade = between(-0.25, 0.25);  // how much lighter the bottom of the background is

    Image image{side_, side_, 3, std::vector<uint8_t>(side_ * side_ * 3)};
    const double cosine = std::cos(angle) / radius, sine = std::sin(angle) / radius;
    for (int64_t i = 0; i < side_ * side_; ++i) {
      int covered = 0;
      for (int k = 0; k < kSubpixels * kSubpixels; ++k) {
        const double u = (static_cast<double>(i % side_) + (k % kSubpixels + 0.5) / kSubpixels) / side_ - cx;
        const double v = cy - (static_cast<double>(i / side_) + (k / kSubpixels + 0.5) / kSubpixels) / side_;
        covered += inside(shape, cosine * u - sine * v, sine * u + cosine * v);
      }
      const double share = covered / static_cast<double>(kSubpixels * kSubpixels);
      const double light = 1 + shade * (2.0 * static_cast<double>(i / side_) / side_ - 1);
      const auto mix = [&](double front, double back) {
        return static_cast<uint8_t>(std::lround(255 * (share * front + (1 - share) * back * light)));
      };
      image.pixels[i * 3] = mix(colour.r, ground.r);
      image.pixels[i * 3 + 1] = mix(colour.g, ground.g);
      image.pixels[i * 3 + 2] = mix(colour.b, ground.b);
    }
    return {std::move(image), shape};
  }

 private:
  int64_t count_;
  Split split_;
  int64_t side_;
};

}  // namespace

std::shared_ptr<const Dataset> make_shapes(int64_t count, Split split, int64_t image_size) {
  check_as(ErrorKind::usage, count > 0 && image_size >= 8 && image_size <= 4096, "shapes: ", count, " images of ",
           image_size, " pixels a side are asked for; at least 1 of 8 to 4096 is expected");
  return std::make_shared<ShapesDataset>(count, split, image_size);
}

}  // namespace addp
