#include "nn/fcos.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "nn/detection_loss.h"

namespace addp {

constexpr double kSampling = 1.5;    // strides around an object's centre in which cells are responsible for it
constexpr double kReach = 4;         // the largest distance that a level is for, in its strides
constexpr double kPrior = 0.01;      // probability of an object at the start, so that the many empty cells weigh little
constexpr double kLargestLogit = 4;  // of a distance: e^4 = 55 strides

// ---- Levels and targets

std::vector<FcosLevel> fcos_levels(const FcosConfig& config) {
  check(config.stride > 0 && config.image_size % config.stride == 0, "fcos: stride ", config.stride,
        " does not divide images of ", config.image_size);
  const int64_t grid = config.image_size / config.stride;
  std::vector<FcosLevel> levels;
  if (config.stride >= 8 && config.stride % 2 == 0) levels.push_back({2 * grid, config.stride / 2});
  for (int64_t factor = 1; factor <= 4 && grid % factor == 0 && grid / factor >= 2; factor *= 2) {
    levels.push_back({grid / factor, config.stride * factor});
  }
  for (size_t i = 0; i < levels.size(); ++i) {
    levels[i].low = i == 0 ? 0 : levels[i - 1].high;
    levels[i].high = i + 1 == levels.size() ? std::numeric_limits<double>::infinity()
                                            : kReach * static_cast<double>(levels[i].stride);
  }
  return levels;
}

// The object that the cell at (x, y) is responsible for, or nullptr.
static const ObjectBox* object_at(double x, double y, const FcosLevel& level, const std::vector<ObjectBox>& objects) {
  const double radius = kSampling * static_cast<double>(level.stride);
  const ObjectBox* best = nullptr;
  for (const ObjectBox& box : objects) {
    const bool inside = x > box.x0 && x < box.x1 && y > box.y0 && y < box.y1;
    const bool central = std::abs(x - (box.x0 + box.x1) / 2) < radius && std::abs(y - (box.y0 + box.y1) / 2) < radius;
    const double reach = std::max({x - box.x0, y - box.y0, box.x1 - x, box.y1 - y});
    const bool suits = reach > level.low && reach <= level.high;
    if (inside && central && suits && (best == nullptr || box.area() < best->area())) best = &box;
  }
  return best;
}

FcosTargets fcos_targets(const std::vector<FcosLevel>& levels, const std::vector<ObjectBox>& objects) {
  FcosTargets targets;
  for (const FcosLevel& level : levels) {
    for (int64_t cell = 0; cell < level.side * level.side; ++cell) {
      const double x = (static_cast<double>(cell % level.side) + 0.5) * static_cast<double>(level.stride);
      const double y = (static_cast<double>(cell / level.side) + 0.5) * static_cast<double>(level.stride);
      const ObjectBox* box = object_at(x, y, level, objects);
      targets.label.push_back(box ? box->label : -1);
      const double l = box ? x - box->x0 : 1, t = box ? y - box->y0 : 1, r = box ? box->x1 - x : 1,
                   b = box ? box->y1 - y : 1;
      targets.distances.insert(targets.distances.end(), {l, t, r, b});
      const double central = std::min(l, r) / std::max(l, r) * std::min(t, b) / std::max(t, b);
      targets.centreness.push_back(box ? std::sqrt(central) : 0);
    }
  }
  return targets;
}

// ---- The head

FcosHead::FcosHead(const FcosConfig& config, const Rng& rng, Options options)
    : config(config),
      levels(fcos_levels(config)),
      class_out(config.width, config.classes, 3, true, options),
      box_out(config.width, 4, 3, true, options),
      centre_out(config.width, 1, 3, true, options) {
  check(!levels.empty(), "fcos: a map of ", config.image_size / config.stride, " cells a side is too small");
  for (size_t i = 0; i < levels.size(); ++i) {
    pyramid.emplace_back(config.in, config.width, options);
    scales.push_back(parameter({1}, options, 1));
  }
  for (int64_t i = 0; i < config.convolutions; ++i) {
    class_tower.emplace_back(config.width, config.width, options);
    box_tower.emplace_back(config.width, config.width, options);
  }
  init_head(*this, rng);
  for (Conv2d* out : {&class_out, &box_out, &centre_out}) {
    copy_into(out->weight.value(), affine(out->weight, 0.1, 0).value());  // small: all cells start alike
  }
  fill(class_out.bias.value(), -std::log((1 - kPrior) / kPrior));
}

// [B, C, h, w] -> [B, h w, C]
static Var by_cell(const Var& x) {
  return reshape(permute(x, {0, 2, 3, 1}), {x.dim(0), x.dim(2) * x.dim(3), x.dim(1)});
}

FcosOutput FcosHead::operator()(const Var& map) const {
  const int64_t grid = config.image_size / config.stride;
  check(map.rank() == 4 && map.dim(1) == config.in && map.dim(2) == grid && map.dim(3) == grid,
        "fcos: the map must be [B, ", config.in, ", ", grid, ", ", grid, "], found ", map.shape());
  std::vector<Var> classes, distances, centreness;
  for (size_t i = 0; i < levels.size(); ++i) {
    const int64_t side = levels[i].side;
    const Var resized = side > grid ? upsample(map, side / grid) : side < grid ? avg_pool(map, grid / side) : map;
    const Var level = pyramid[i](resized);
    Var a = level, b = level;
    for (const ConvNormSilu& block : class_tower) a = block(a);
    for (const ConvNormSilu& block : box_tower) b = block(b);
    classes.push_back(by_cell(class_out(a)));
    const Var logits = clamp(by_cell(box_out(b)) * scales[i], -kLargestLogit, kLargestLogit);
    distances.push_back(static_cast<double>(levels[i].stride) * exp(logits));
    centreness.push_back(by_cell(centre_out(b)));
  }
  const Var central = concat(centreness, 1);
  return {concat(classes, 1), concat(distances, 1), reshape(central, {central.dim(0), central.dim(1)})};
}

FcosLosses FcosHead::loss(const FcosOutput& output, const std::vector<std::vector<ObjectBox>>& objects) const {
  const int64_t B = output.classes.dim(0), M = output.classes.dim(1), C = config.classes;
  check(static_cast<int64_t>(objects.size()) == B, "fcos: ", objects.size(), " lists of objects for ", B, " images");
  std::vector<double> one_hot(static_cast<size_t>(B * M * C), 0.0), distances, centreness;
  std::vector<int64_t> positive;
  double total_centreness = 0;
  for (int64_t b = 0; b < B; ++b) {
    const FcosTargets targets = fcos_targets(levels, objects[static_cast<size_t>(b)]);
    for (int64_t m = 0; m < M; ++m) {
      const int64_t label = targets.label[static_cast<size_t>(m)];
      if (label < 0) continue;
      check(label < C, "fcos: class ", label, " is not among ", C);
      one_hot[static_cast<size_t>((b * M + m) * C + label)] = 1;
      positive.push_back(b * M + m);
      const auto from = targets.distances.begin() + 4 * m;
      distances.insert(distances.end(), from, from + 4);
      centreness.push_back(targets.centreness[static_cast<size_t>(m)]);
      total_centreness += centreness.back();
    }
  }
  const Options on = output.classes.options();
  const auto P = static_cast<int64_t>(positive.size());
  const auto tensor = [&](const std::vector<double>& values, Shape shape) {
    return to(from_vector(values, shape), on);
  };
  const double share = 1 / static_cast<double>(std::max<int64_t>(1, P));
  const Var classes = share * sum(focal_loss(output.classes, tensor(one_hot, {B, M, C})));
  if (P == 0) return {classes, classes.item(), 0, 0, 0};

  const Tensor index = to(from_vector(positive, {P}), {DType::i64, on.device});
  const Tensor central = tensor(centreness, {P});
  const Var found = gather_rows(reshape(output.distances, {B * M, 4}), index);
  const Var boxes = (1 / total_centreness) * sum(giou_loss(found, tensor(distances, {P, 4})) * Var(central));
  const Var logits = reshape(gather_rows(reshape(output.centreness, {B * M, 1}), index), {P});
  const Var centre = share * sum(sigmoid_cross_entropy(logits, central));
  return {classes + boxes + centre, classes.item(), boxes.item(), centre.item(), P};
}

std::vector<std::vector<Detection>> FcosHead::detections(const FcosOutput& output, const DecodeOptions& options) const {
  const NoGrad no_grad;
  const int64_t B = output.classes.dim(0), M = output.classes.dim(1), C = config.classes;
  const std::vector<double> classes = to_vector<double>(sigmoid(output.classes).value());
  const std::vector<double> central = to_vector<double>(sigmoid(output.centreness).value());
  const std::vector<double> distances = to_vector<double>(output.distances.value());
  const double size = static_cast<double>(config.image_size);
  std::vector<std::vector<Detection>> all(static_cast<size_t>(B));
  for (int64_t b = 0; b < B; ++b) {
    std::vector<Detection>& found = all[static_cast<size_t>(b)];
    int64_t m = 0;
    for (const FcosLevel& level : levels) {
      for (int64_t cell = 0; cell < level.side * level.side; ++cell, ++m) {
        const double x = (static_cast<double>(cell % level.side) + 0.5) * static_cast<double>(level.stride);
        const double y = (static_cast<double>(cell / level.side) + 0.5) * static_cast<double>(level.stride);
        const auto place = static_cast<size_t>(b * M + m);
        const double* d = &distances[place * 4];
        for (int64_t c = 0; c < C; ++c) {
          const double score =
              std::sqrt(classes[place * static_cast<size_t>(C) + static_cast<size_t>(c)] * central[place]);
          if (score <= options.min_score) continue;
          found.push_back({{std::max(0.0, x - d[0]), std::max(0.0, y - d[1]), std::min(size, x + d[2]),
                            std::min(size, y + d[3]), c},
                           score});
        }
      }
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Detection& p, const Detection& q) { return p.score > q.score; });
    if (static_cast<int64_t>(found.size()) > options.candidates) found.resize(static_cast<size_t>(options.candidates));
    found = suppress(std::move(found), options.max_iou, options.most);
  }
  return all;
}

}  // namespace addp
