// Segmentation and detection: losses and their gradients, targets against a plain search, average precision against
// pycocotools, mean intersection over union, pyramids and heads of odd sizes.
#include <fstream>
#include <nlohmann/json.hpp>

#include "addp/dense.h"
#include "autograd/codes.h"
#include "nn/coco_eval.h"
#include "nn/detection_loss.h"
#include "nn/miou.h"
#include "nn/optimizer.h"
#include "tests/compare.h"

namespace addp {
namespace {

Tensor random_targets(Shape shape, uint64_t seed) {
  Rng rng(seed);
  Tensor t = rng.uniform(std::move(shape), kDouble);
  for (int64_t i = 0; i < t.numel(); ++i) t.ptr<double>()[i] = t.ptr<double>()[i] < 0.3 ? 1 : 0;
  return t;
}

std::unique_ptr<Backbone> tiny_backbone(int64_t image_size, Options options = kDouble) {
  return std::make_unique<EncoderBackbone>(preset("tiny"), BackboneOptions{.image_size = image_size}, Rng(3), options);
}

}  // namespace

TEST_CASE("coco: average precision equals pycocotools'") {
  std::ifstream file("tests/golden/coco_expected.json");
  const auto cases = nlohmann::json::parse(file).at("cases");
  CHECK(cases.size() == 6);
  for (const auto& item : cases) {
    INFO(item.at("name").get<std::string>());
    std::vector<CocoTruth> truths;
    std::vector<CocoDetection> detections;
    const auto box = [](const nlohmann::json& row) {
      const double x = row[2], y = row[3];
      return ObjectBox{x, y, x + row[4].get<double>(), y + row[5].get<double>(), row[1].get<int64_t>()};
    };
    for (const auto& row : item.at("truths")) truths.push_back({row[0], box(row), row[6], row[7] == 1});
    for (const auto& row : item.at("detections")) detections.push_back({row[0], box(row), row[6]});
    const CocoScores s = coco_evaluate(truths, detections);
    const auto same = [&](const char* name, double value) {
      INFO(name);
      CHECK(value == doctest::Approx(item.at("expected").at(name).get<double>()).epsilon(1e-12));
    };
    same("ap", s.ap), same("ap50", s.ap50), same("ap75", s.ap75);
    same("ap_small", s.ap_small), same("ap_medium", s.ap_medium), same("ap_large", s.ap_large);
    same("ar1", s.ar1), same("ar10", s.ar10), same("ar100", s.ar100);
    same("ar_small", s.ar_small), same("ar_medium", s.ar_medium), same("ar_large", s.ar_large);
  }
}

TEST_CASE("coco: nothing to find, nothing found, all found") {
  CHECK(coco_evaluate({}, {}).ap == -1);
  CHECK(coco_evaluate({{0, {0, 0, 9, 9, 0}}}, {}).ap == 0);
  CHECK(coco_evaluate({}, {{0, {0, 0, 9, 9, 0}, 1}}).ap == -1);
  CHECK(coco_evaluate({{0, {0, 0, 9, 9, 2}}}, {{0, {0, 0, 9, 9, 2}, 0.1}}).ap == doctest::Approx(1));
  CHECK(coco_evaluate({{0, {0, 0, 9, 9, 2}}}, {{1, {0, 0, 9, 9, 2}, 0.1}}).ap == 0);  // in another image
}

TEST_CASE("coco: of two objects that overlap a detection alike the later one is taken, as by pycocotools") {
  const std::vector<CocoTruth> truths = {{0, {0, 0, 10, 10, 0}}, {0, {4, 0, 14, 10, 0}}};
  // The first lies between the objects, 2/3 with either; the second fits the first object only.
  const std::vector<CocoDetection> detections = {{0, {2, 0, 12, 10, 0}, 0.9}, {0, {0, 0, 10, 10, 0}, 0.8}};
  CHECK(coco_evaluate(truths, detections).ap50 == doctest::Approx(1));
}

TEST_CASE("dense: mean intersection over union by hand") {
  ConfusionMatrix confusion(4);
  confusion.add(from_vector<int64_t>({0, 1, 1, 2, 0, 2}, {2, 3}), from_vector<int64_t>({0, 0, 1, 2, 255, 1}, {2, 3}),
                255);
  const std::vector<double> iou = confusion.iou();
  CHECK(iou[0] == doctest::Approx(1.0 / 2));
  CHECK(iou[1] == doctest::Approx(1.0 / 3));
  CHECK(iou[2] == doctest::Approx(1.0 / 2));
  CHECK(iou[3] == -1);
  CHECK(confusion.mean_iou() == doctest::Approx((1.0 / 2 + 1.0 / 3 + 1.0 / 2) / 3));
  CHECK(confusion.pixel_accuracy() == doctest::Approx(3.0 / 5));
  CHECK(ConfusionMatrix(2).mean_iou() == 0);
  CHECK_THROWS_AS(confusion.add(from_vector<int64_t>({4}, {1}), from_vector<int64_t>({0}, {1}), 255), Error);
}

TEST_CASE("dense: losses of detectors, gradients and values by their definitions") {
  const Tensor target = random_targets({4, 5}, 9);
  const auto like = [](const Tensor& t, const Var& v) { return to(t, v.options()); };
  check_op({{4, 5}}, [&](auto& v) { return softplus(v[0]); }, {-8, 8});
  check_op({{4, 5}}, [&](auto& v) { return sigmoid_cross_entropy(v[0], like(target, v[0])); }, {-6, 6});
  check_op({{4, 5}}, [&](auto& v) { return focal_loss(v[0], like(target, v[0])); }, {-4, 4});
  const Tensor edges = Rng(4).uniform({7, 4}, kDouble);
  const Tensor positive = affine(Var(edges), 3, 0.2).value();
  check_op({{7, 4}}, [&](auto& v) { return giou_loss(v[0], like(positive, v[0])); }, {0.3, 3});

  const std::vector<double> x = {-30, -2, 0, 1.5, 40};
  for (size_t i = 0; i < x.size(); ++i) {
    for (const double t : {0.0, 1.0}) {
      const double p = 1 / (1 + std::exp(-x[i])), pt = t == 1 ? p : 1 - p;
      const double log_pt = t == 1 ? -std::log1p(std::exp(-x[i])) : -std::log1p(std::exp(x[i]));
      const double expected = -(t == 1 ? 0.25 : 0.75) * (1 - pt) * (1 - pt) * log_pt;
      const Var found = focal_loss(Var(from_vector<double>({x[i]}, {1})), from_vector<double>({t}, {1}));
      CHECK(found.item() == doctest::Approx(expected).epsilon(1e-9));
    }
  }
  // Boxes [-1, 3] x [-1, 1] and [-2, 2] x [-1, 1]: intersection 6, union 10, hull 10.
  const auto loss = [](const std::vector<double>& a, const std::vector<double>& b) {
    return giou_loss(Var(from_vector(a, {1, 4})), from_vector(b, {1, 4})).item();
  };
  CHECK(loss({1, 1, 3, 1}, {2, 1, 2, 1}) == doctest::Approx(1 - 0.6));
  // [-1, 1] x [-3, 3] and [-3, 3] x [-1, 1]: intersection 4, union 20, hull 36.
  CHECK(loss({1, 3, 1, 3}, {3, 1, 3, 1}) == doctest::Approx(1 - (0.2 - 16.0 / 36)));
}

TEST_CASE("dense: suppression keeps the best of each class") {
  const std::vector<Detection> found = {{{0, 0, 10, 10, 0}, 0.5},
                                        {{1, 0, 11, 10, 0}, 0.9},
                                        {{1, 0, 11, 10, 1}, 0.4},
                                        {{30, 30, 40, 40, 0}, 0.3},
                                        {{0, 5, 10, 15, 0}, 0.2}};
  const std::vector<Detection> kept = suppress(found, 0.5, 10);
  REQUIRE(kept.size() == 4);
  CHECK(kept[0].score == 0.9);
  CHECK(kept[1].box.label == 1);
  CHECK(kept[2].score == 0.3);
  CHECK(kept[3].score == 0.2);
  CHECK(suppress(found, 0.5, 2).size() == 2);
  CHECK(suppress({}, 0.5, 2).empty());
}

TEST_CASE("dense: levels cover all sizes; each object has a cell; decoding its targets gives it back") {
  for (const auto& [size, stride] :
       {std::pair<int64_t, int64_t>{64, 4}, {64, 8}, {96, 16}, {40, 8}, {36, 4}, {14, 7}}) {
    INFO(size, " ", stride);
    const FcosConfig config = {.image_size = size, .stride = stride, .in = 8, .width = 8, .classes = 3};
    FcosHead head(config, Rng(1), kDouble);
    REQUIRE(!head.levels.empty());
    CHECK(head.levels.front().low == 0);
    CHECK(std::isinf(head.levels.back().high));
    int64_t cells = 0;
    for (const FcosLevel& level : head.levels) {
      CHECK(level.side * level.stride == size);
      cells += level.side * level.side;
    }
    const double side = static_cast<double>(size);
    const std::vector<ObjectBox> objects = {{0.1 * side, 0.2 * side, 0.5 * side, 0.75 * side, 1},
                                            {0.55 * side, 0.1 * side, side, 0.4 * side, 2}};
    const FcosTargets targets = fcos_targets(head.levels, objects);
    REQUIRE(static_cast<int64_t>(targets.label.size()) == cells);
    // A head that says what the targets say.
    FcosOutput output{Var(full({1, cells, 3}, -20, kDouble)), Var(from_vector(targets.distances, {1, cells, 4})),
                      Var(full({1, cells}, -20, kDouble))};
    int64_t found = 0;
    for (int64_t m = 0; m < cells; ++m) {
      if (targets.label[m] < 0) continue;
      output.classes.value().ptr<double>()[m * 3 + targets.label[m]] = 20;
      output.centreness.value().ptr<double>()[m] = 20;
      CHECK((targets.centreness[m] > 0 && targets.centreness[m] <= 1));
      ++found;
    }
    CHECK(found > 0);
    const auto detections = head.detections(output, {});
    std::vector<CocoTruth> truths;
    std::vector<CocoDetection> decoded;
    for (const ObjectBox& box : objects) truths.push_back({0, box});
    for (const Detection& d : detections[0]) decoded.push_back({0, d.box, d.score});
    CHECK(coco_evaluate(truths, decoded).ap == doctest::Approx(1));
  }
}

TEST_CASE("dense: of two objects over a cell the smaller one counts, cells without one learn the background") {
  const std::vector<FcosLevel> levels = {{8, 4, 0, std::numeric_limits<double>::infinity()}};
  const FcosTargets targets = fcos_targets(levels, {{0, 0, 32, 32, 0}, {12, 12, 20, 20, 1}});
  CHECK(targets.label[3 * 8 + 3] == 1);
  CHECK(targets.centreness[3 * 8 + 3] ==
        doctest::Approx(std::sqrt(2.0 / 6 * 2 / 6)));  // 2 pixels to one edge, 6 to the other
  CHECK(targets.label[0] == -1);
  CHECK(targets.centreness[0] == 0);
  const FcosTargets empty = fcos_targets(levels, {});
  CHECK(std::count(empty.label.begin(), empty.label.end(), -1) == 64);
}

TEST_CASE("dense: detections end at the image's edges, scores are geometric means") {
  const FcosHead head({.image_size = 16, .stride = 4, .in = 4, .width = 4, .classes = 1}, Rng(1), kDouble);
  int64_t cells = 0;
  for (const FcosLevel& level : head.levels) cells += level.side * level.side;
  FcosOutput output{Var(full({1, cells, 1}, -20, kDouble)), Var(full({1, cells, 4}, 50, kDouble)),
                    Var(full({1, cells}, 0, kDouble))};
  output.classes.value().ptr<double>()[5] = 0;
  const auto detections = head.detections(output, {});
  REQUIRE(detections[0].size() == 1);
  const ObjectBox& box = detections[0][0].box;
  CHECK((box.x0 == 0 && box.y0 == 0 && box.x1 == 16 && box.y1 == 16));
  CHECK(detections[0][0].score == doctest::Approx(0.5));
}

TEST_CASE("dense: gradients of segmenter and detector in float64") {
  Segmenter segmenter(tiny_backbone(24), 5, 8, Rng(2), kDouble);
  const Var image(Rng(7).uniform({2, 3, 24, 24}, kDouble));
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < 2 * 24 * 24; ++i) labels.push_back(i / 5 % 5);
  const Tensor truth = from_vector(labels, {2, 24, 24});
  CHECK(segmenter(image).shape() == Shape{2, 5, 24, 24});
  CHECK(gradcheck(
            [&] {
              return cross_entropy(permute(segmenter(image), {0, 2, 3, 1}), truth, Tensor(), 0);
            },
            parameters(segmenter), 6)
            .worst_error < 1e-6);

  Detector detector(tiny_backbone(24), 3, 8, Rng(2), kDouble);
  const std::vector<std::vector<ObjectBox>> objects = {{{2, 3, 15, 20, 1}}, {{10, 1, 23, 12, 0}, {0, 12, 9, 23, 2}}};
  CHECK(gradcheck([&] { return detector.head.loss(detector(image), objects).total; }, parameters(detector), 6)
            .worst_error < 1e-6);
}

TEST_CASE("dense: an image without objects has a loss of its own") {
  Detector detector(tiny_backbone(32, Options()), 3, 8, Rng(2), Options());
  const FcosOutput output = detector(Var(Rng(7).uniform({2, 3, 32, 32})));
  const FcosLosses losses = detector.head.loss(output, {{}, {}});
  CHECK(losses.positives == 0);
  CHECK(losses.total.item() > 0);
  backward(losses.total);
  CHECK_THROWS_AS(detector.head.loss(output, {{}}), Error);
  CHECK_THROWS_AS(detector.head.loss(output, {{{0, 0, 9, 9, 3}}, {}}), Error);
}

TEST_CASE("dense: heads learn one batch by heart") {
  const Tensor image = Rng(7).uniform({2, 3, 32, 32});
  std::vector<int64_t> labels(2 * 32 * 32, 0);
  const std::vector<std::vector<ObjectBox>> objects = {{{4, 4, 18, 16, 1}}, {{14, 10, 30, 31, 0}}};
  for (int64_t b = 0; b < 2; ++b) {
    const ObjectBox& box = objects[static_cast<size_t>(b)][0];
    for (int64_t p = 0; p < 1024; ++p) {
      if (p % 32 >= box.x0 && p % 32 < box.x1 && p / 32 >= box.y0 && p / 32 < box.y1)
        labels[b * 1024 + p] = 1 + box.label;
    }
  }
  const Tensor truth = from_vector(labels, {2, 32, 32});

  Segmenter segmenter(tiny_backbone(32, Options()), 3, 16, Rng(2), Options());
  AdamW a(parameters(segmenter), {});
  for (int step = 0; step < 60; ++step) {
    backward(cross_entropy(permute(segmenter(Var(image)), {0, 2, 3, 1}), truth, Tensor(), 0));
    a.step(5e-3);
  }
  ConfusionMatrix confusion(3);
  confusion.add(argmax(permute(segmenter(Var(image)), {0, 2, 3, 1}).value()), truth, 255);
  CHECK(confusion.mean_iou() > 0.9);

  Detector detector(tiny_backbone(32, Options()), 2, 16, Rng(2), Options());
  AdamW b(parameters(detector), {.clip_norm = 3});
  for (int step = 0; step < 120; ++step) {
    backward(detector.head.loss(detector(Var(image)), objects).total);
    b.step(5e-3);
  }
  std::vector<CocoTruth> truths;
  std::vector<CocoDetection> found;
  const auto detections = detector.head.detections(detector(Var(image)), {});
  for (int64_t i = 0; i < 2; ++i) {
    truths.push_back({i, objects[static_cast<size_t>(i)][0]});
    for (const Detection& d : detections[static_cast<size_t>(i)]) found.push_back({i, d.box, d.score});
  }
  CHECK(coco_evaluate(truths, found).ap > 0.8);
}

}  // namespace addp
