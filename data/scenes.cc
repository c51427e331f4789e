#include "data/scenes.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "data/augment.h"
#include "tensor/random.h"

namespace addp {
namespace {

constexpr uint64_t kScenesSeed = 20250301;
constexpr int64_t kMaxObjects = 6, kAttempts = 12;
constexpr double kMinSide = 0.25, kMaxSide = 0.6;  // of an object's square image, as a share of the canvas
constexpr double kMaxOverlap = 0.3;                // of two boxes, as a share of the smaller one
constexpr uint8_t kNearlyBlack = 12;

using Colour = std::array<double, 3>;

double between(Rng& rng, double low, double high) { return low + (high - low) * rng.uniform(); }

// A hue of full range; saturation and brightness in [0, 1].
Colour random_colour(Rng& rng, double saturation, double brightness) {
  const double hue = 6 * rng.uniform();
  Colour colour;
  for (int c = 0; c < 3; ++c) {
    const double distance = std::abs(std::fmod(hue + 2 * c, 6.0) - 3) - 1;
    colour[c] = brightness * (1 - saturation * (1 - std::clamp(distance, 0.0, 1.0)));
  }
  return colour;
}

// Smooth noise on the unit square: random values on a grid, between which it is interpolated.
class Noise {
 public:
  Noise(int64_t cells, Rng& rng) : cells_(cells), values_(static_cast<size_t>((cells + 1) * (cells + 1))) {
    for (double& v : values_) v = between(rng, -1, 1);
  }
  double at(double x, double y) const {
    const auto column = static_cast<int64_t>(x * static_cast<double>(cells_));
    const auto row = static_cast<int64_t>(y * static_cast<double>(cells_));
    const double u = smooth(x * static_cast<double>(cells_) - static_cast<double>(column));
    const double v = smooth(y * static_cast<double>(cells_) - static_cast<double>(row));
    const double* corner = &values_[static_cast<size_t>(row * (cells_ + 1) + column)];
    const double above = corner[0] + u * (corner[1] - corner[0]);
    const double below = corner[cells_ + 1] + u * (corner[cells_ + 2] - corner[cells_ + 1]);
    return above + v * (below - above);
  }

 private:
  static double smooth(double t) { return t * t * (3 - 2 * t); }
  int64_t cells_;
  std::vector<double> values_;
};

// A scene as it is painted; `owner` says which object a pixel shows, -1 the canvas.
struct Painting {
  explicit Painting(int64_t side)
      : side(side), rgb(static_cast<size_t>(3 * side * side)), owner(static_cast<size_t>(side * side), -1) {}
  int64_t side;
  std::vector<double> rgb;  // in [0, 1] or a little beyond
  std::vector<int> owner;
};

// Two colours mixed by coarse noise, with fine noise and stripes on top.
void paint_canvas(Painting& painting, Rng& rng) {
  const Colour first = random_colour(rng, between(rng, 0.1, 0.6), between(rng, 0.2, 0.9));
  const Colour second = random_colour(rng, between(rng, 0.1, 0.6), between(rng, 0.2, 0.9));
  const Noise coarse(2 + rng.below(4), rng), fine(8 + rng.below(9), rng);
  const double fx = between(rng, -12, 12), fy = between(rng, -12, 12), stripes = between(rng, 0, 0.2);
  const double side = static_cast<double>(painting.side);
  for (int64_t i = 0; i < painting.side * painting.side; ++i) {
    const double x = (static_cast<double>(i % painting.side) + 0.5) / side;
    const double y = (static_cast<double>(i / painting.side) + 0.5) / side;
    const double share = 0.5 + 0.5 * coarse.at(x, y);
    const double light = 1 + 0.25 * fine.at(x, y) + stripes * std::sin(6.283185307179586 * (fx * x + fy * y));
    for (int64_t c = 0; c < 3; ++c) painting.rgb[i * 3 + c] = light * (share * first[c] + (1 - share) * second[c]);
  }
}

// An object, scaled: its shades and how much of each pixel it covers, both [side, side] in [0, 1].
struct Stamp {
  int64_t side;
  std::vector<float> shade, cover;
  ObjectBox bounds;  // of the pixels that are covered by half, within the stamp
};

std::vector<float> scaled_plane(const Image& image, int64_t side) {
  std::vector<float> planes(static_cast<size_t>(3 * side * side));
  resize_box(image, {0, 0, image.height, image.width}, side, false, planes.data());
  planes.resize(static_cast<size_t>(side * side));
  return planes;
}

Stamp make_stamp(const Image& image, int64_t side) {
  Stamp stamp{side,
              scaled_plane(image, side),
              scaled_plane(silhouette(image), side),
              {static_cast<double>(side), static_cast<double>(side), 0, 0}};
  for (int64_t i = 0; i < side * side; ++i) {
    if (stamp.cover[i] < 0.5f) continue;
    const double x = static_cast<double>(i % side), y = static_cast<double>(i / side);
    ObjectBox& b = stamp.bounds;
    b = {std::min(b.x0, x), std::min(b.y0, y), std::max(b.x1, x + 1), std::max(b.y1, y + 1), 0};
  }
  return stamp;
}

double overlap(const ObjectBox& a, const ObjectBox& b) {
  const double width = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
  const double height = std::min(a.y1, b.y1) - std::max(a.y0, b.y0);
  return width > 0 && height > 0 ? width * height / std::min(a.area(), b.area()) : 0;
}

void paint_stamp(Painting& painting, const Stamp& stamp, int64_t left, int64_t top, const Colour& tint, int number) {
  for (int64_t i = 0; i < stamp.side * stamp.side; ++i) {
    const double cover = stamp.cover[i];
    if (cover <= 0) continue;
    const int64_t at = (top + i / stamp.side) * painting.side + left + i % stamp.side;
    for (int64_t c = 0; c < 3; ++c) {
      double& pixel = painting.rgb[at * 3 + c];
      pixel += cover * (tint[c] * (0.2 + 0.8 * stamp.shade[i]) - pixel);
    }
    if (cover >= 0.5) painting.owner[at] = number;
  }
}

class ScenesDataset : public Dataset {
 public:
  ScenesDataset(std::shared_ptr<const Dataset> objects, int64_t count, Split split, int64_t side)
      : objects_(std::move(objects)), count_(count), split_(split), side_(side) {
    name = "scenes";
    class_names = objects_->class_names;
    has_masks = has_boxes = true;
  }
  int64_t size() const override { return count_; }
  std::string where(int64_t index) const override { return concat_text("scenes, image ", index); }

  Sample read(int64_t index) const override {
    check(index >= 0 && index < count_, "scenes: there is no sample ", index, " among ", count_);
    Rng rng = Rng(kScenesSeed).fork(split_name(split_)).fork(static_cast<uint64_t>(index));
    Painting painting(side_);
    paint_canvas(painting, rng);
    const std::vector<int64_t> labels = paint_objects(painting, rng);
    return finish(painting, labels, rng);
  }

 private:
  // Returns the label of each object; the first always finds a place.
  std::vector<int64_t> paint_objects(Painting& painting, Rng& rng) const {
    std::vector<int64_t> labels;
    std::vector<ObjectBox> taken;
    const int64_t wanted = 1 + rng.below(kMaxObjects);
    for (int64_t attempt = 0; attempt < kAttempts * wanted && static_cast<int64_t>(labels.size()) < wanted; ++attempt) {
      const Sample object = objects_->read(rng.below(objects_->size()));
      const auto side = std::lround(static_cast<double>(side_) * between(rng, kMinSide, kMaxSide));
      const Stamp stamp = make_stamp(object.image, side);
      const int64_t left = rng.below(side_ - side + 1), top = rng.below(side_ - side + 1);
      const Colour tint = random_colour(rng, between(rng, 0, 0.7), between(rng, 0.6, 1));
      const ObjectBox& b = stamp.bounds;
      if (b.x1 - b.x0 < 3 || b.y1 - b.y0 < 3) continue;  // an almost empty image
      const double x = static_cast<double>(left), y = static_cast<double>(top);
      const ObjectBox box = {b.x0 + x, b.y0 + y, b.x1 + x, b.y1 + y, object.label};
      const auto hides = [&](const ObjectBox& other) { return overlap(box, other) > kMaxOverlap; };
      if (std::any_of(taken.begin(), taken.end(), hides)) continue;
      paint_stamp(painting, stamp, left, top, tint, static_cast<int>(labels.size()));
      labels.push_back(object.label);
      taken.push_back(box);
    }
    check_as(ErrorKind::data, !labels.empty(), "scenes: ", objects_->name, " has no visible objects");
    return labels;
  }

  // Pixels with a little sensor noise, the mask, and boxes around what is visible.
  Sample finish(const Painting& painting, const std::vector<int64_t>& labels, Rng& rng) const {
    const double side = static_cast<double>(side_);
    Sample sample{{side_, side_, 3, std::vector<uint8_t>(painting.rgb.size())}, labels[0]};
    for (size_t i = 0; i < painting.rgb.size(); ++i) {
      const double noisy = painting.rgb[i] + 0.04 * (rng.uniform() - 0.5);
      sample.image.pixels[i] = static_cast<uint8_t>(std::lround(255 * std::clamp(noisy, 0.0, 1.0)));
    }
    std::vector<ObjectBox> boxes(labels.size(), {side, side, 0, 0, 0});
    sample.mask.assign(painting.owner.size(), 0);
    for (int64_t i = 0; i < side_ * side_; ++i) {
      const int owner = painting.owner[static_cast<size_t>(i)];
      if (owner < 0) continue;
      const int64_t label = labels[static_cast<size_t>(owner)];
      sample.mask[static_cast<size_t>(i)] = static_cast<uint8_t>(label + 1);
      const double x = static_cast<double>(i % side_), y = static_cast<double>(i / side_);
      ObjectBox& b = boxes[static_cast<size_t>(owner)];
      b = {std::min(b.x0, x), std::min(b.y0, y), std::max(b.x1, x + 1), std::max(b.y1, y + 1), label};
    }
    for (const ObjectBox& box : boxes) {
      if (box.x1 > box.x0) sample.boxes.push_back(box);
    }
    return sample;
  }

  std::shared_ptr<const Dataset> objects_;
  int64_t count_;
  Split split_;
  int64_t side_;
};

}  // namespace

Image silhouette(const Image& image) {
  check(image.channels == 1, "silhouette: a gray image is expected, found ", image.channels, " channels");
  const int64_t H = image.height, W = image.width;
  Image result{H, W, 1, std::vector<uint8_t>(static_cast<size_t>(H * W), 255)};
  std::vector<int64_t> border;  // pixels that were found to be outside and whose neighbours are to be visited
  const auto visit = [&](int64_t y, int64_t x) {
    const size_t at = static_cast<size_t>(y * W + x);
    if (y < 0 || x < 0 || y >= H || x >= W || result.pixels[at] == 0 || image.pixels[at] >= kNearlyBlack) return;
    result.pixels[at] = 0;
    border.push_back(y * W + x);
  };
  for (int64_t x = 0; x < W; ++x) visit(0, x), visit(H - 1, x);
  for (int64_t y = 0; y < H; ++y) visit(y, 0), visit(y, W - 1);
  while (!border.empty()) {
    const int64_t y = border.back() / W, x = border.back() % W;
    border.pop_back();
    visit(y - 1, x), visit(y + 1, x), visit(y, x - 1), visit(y, x + 1);
  }
  return result;
}

std::shared_ptr<const Dataset> make_scenes(std::shared_ptr<const Dataset> objects, int64_t count, Split split,
                                           int64_t image_size) {
  check_as(ErrorKind::usage, count > 0 && image_size >= 32 && image_size <= 1024, "scenes: ", count, " scenes of ",
           image_size, " pixels a side are asked for; at least 1 of 32 to 1024 is expected");
  check_as(ErrorKind::data, objects->classes() < kUnjudged, "scenes: ", objects->classes(),
           " classes do not fit a mask of bytes");
  return std::make_shared<ScenesDataset>(std::move(objects), count, split, image_size);
}

}  // namespace addp
