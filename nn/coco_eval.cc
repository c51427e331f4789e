// As pycocotools' COCOeval: evaluate() matches detections to objects within an image and a class, accumulate() turns
// matches of all images into precision over recall, summarize() averages.
#include "nn/coco_eval.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <numeric>
#include <set>

namespace addp {
namespace {

constexpr int kThresholds = 10, kRecalls = 101;
constexpr size_t kMaxDetections = 100;

struct AreaRange {
  double low, high;
};
constexpr AreaRange kAll = {0, 1e10}, kSmall = {0, 32 * 32}, kMedium = {32 * 32, 96 * 96}, kLarge = {96 * 96, 1e10};

double threshold(int i) { return i == kThresholds - 1 ? 0.95 : 0.5 + i * ((0.95 - 0.5) / (kThresholds - 1)); }
double recall_point(int i) { return i == kRecalls - 1 ? 1 : i * (1.0 / (kRecalls - 1)); }

// The objects and detections of one class in one image; detections by falling score.
struct Cell {
  std::vector<CocoTruth> truths;
  std::vector<CocoDetection> detections;
  std::vector<std::vector<double>> iou;  // [detection][truth]
};
using Cells = std::map<int64_t, Cell>;  // by image

double area_of(const CocoTruth& truth) { return truth.area < 0 ? truth.box.area() : truth.area; }
bool outside(double area, const AreaRange& range) { return area < range.low || area > range.high; }

// What became of one detection, at each threshold.
struct Verdict {
  double score;
  std::array<bool, kThresholds> matched{}, ignored{};
};

struct Matches {
  std::vector<Verdict> detections;
  int64_t objects = 0;  // that count
};

// order: the objects that count first. Returns the object that a detection matches best at a threshold, or -1.
int best_match(const Cell& cell, size_t detection, double least, const std::vector<size_t>& order,
               const std::vector<bool>& ignore, const std::vector<bool>& taken) {
  double best = std::min(least, 1 - 1e-10);
  int match = -1;
  for (const size_t g : order) {
    if (taken[g] && !cell.truths[g].crowd) continue;
    if (match >= 0 && !ignore[static_cast<size_t>(match)] && ignore[g]) break;  // a real object beats all ignored ones
    if (cell.iou[detection][g] < best) continue;
    best = cell.iou[detection][g];
    match = static_cast<int>(g);
  }
  return match;
}

Matches match_cell(const Cell& cell, const AreaRange& range) {
  Matches matches;
  const size_t n = cell.truths.size();
  std::vector<bool> ignore(n);
  for (size_t g = 0; g < n; ++g) ignore[g] = cell.truths[g].crowd || outside(area_of(cell.truths[g]), range);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ignore[a] < ignore[b]; });
  matches.objects = std::count(ignore.begin(), ignore.end(), false);

  for (const CocoDetection& detection : cell.detections) matches.detections.push_back({detection.score});
  for (int t = 0; t < kThresholds; ++t) {
    std::vector<bool> taken(n, false);
    for (size_t d = 0; d < cell.detections.size(); ++d) {
      Verdict& verdict = matches.detections[d];
      const int match = best_match(cell, d, threshold(t), order, ignore, taken);
      if (match >= 0) {
        verdict.matched[t] = true;
        verdict.ignored[t] = ignore[static_cast<size_t>(match)];
        taken[static_cast<size_t>(match)] = true;
      } else {
        verdict.ignored[t] = outside(cell.detections[d].box.area(), range);
      }
    }
  }
  return matches;
}

// Precision at each point of recall, and the final recall, of one class at one threshold.
struct Curve {
  double mean_precision = 0, recall = 0;
};

Curve precision_curve(const std::vector<Verdict>& detections, int64_t objects, int t) {
  std::vector<double> precision, recall;
  double right = 0, wrong = 0;
  for (const Verdict& verdict : detections) {
    if (!verdict.ignored[t]) (verdict.matched[t] ? right : wrong) += 1;
    recall.push_back(right / static_cast<double>(objects));
    precision.push_back(right / (right + wrong + std::numeric_limits<double>::epsilon()));
  }
  for (size_t i = precision.size(); i-- > 1;) precision[i - 1] = std::max(precision[i - 1], precision[i]);
  Curve curve;
  for (int r = 0; r < kRecalls; ++r) {
    const auto at = std::lower_bound(recall.begin(), recall.end(), recall_point(r)) - recall.begin();
    if (at < static_cast<int64_t>(precision.size())) curve.mean_precision += precision[static_cast<size_t>(at)];
  }
  curve.mean_precision /= kRecalls;
  curve.recall = recall.empty() ? 0 : recall.back();
  return curve;
}

// Averages over the classes that have objects in the range; [threshold].
struct Averages {
  std::array<double, kThresholds> precision, recall;
  double mean_precision() const { return std::accumulate(precision.begin(), precision.end(), 0.0) / kThresholds; }
  double mean_recall() const { return std::accumulate(recall.begin(), recall.end(), 0.0) / kThresholds; }
};

Averages average(const std::map<int64_t, Cells>& classes, const AreaRange& range, size_t most) {
  Averages averages{};
  int64_t present = 0;
  for (const auto& [label, cells] : classes) {
    std::vector<Verdict> all;
    int64_t objects = 0;
    for (const auto& [image, cell] : cells) {
      const Matches matches = match_cell(cell, range);
      objects += matches.objects;
      const size_t count = std::min(most, matches.detections.size());
      all.insert(all.end(), matches.detections.begin(), matches.detections.begin() + static_cast<int64_t>(count));
    }
    if (objects == 0) continue;
    ++present;
    std::stable_sort(all.begin(), all.end(), [](const Verdict& a, const Verdict& b) { return a.score > b.score; });
    for (int t = 0; t < kThresholds; ++t) {
      const Curve curve = precision_curve(all, objects, t);
      averages.precision[t] += curve.mean_precision;
      averages.recall[t] += curve.recall;
    }
  }
  const auto finish = [&](double& value) { value = present > 0 ? value / static_cast<double>(present) : -1; };
  for (double& value : averages.precision) finish(value);
  for (double& value : averages.recall) finish(value);
  return averages;
}

std::map<int64_t, Cells> sort_into_cells(const std::vector<CocoTruth>& truths,
                                         const std::vector<CocoDetection>& detections) {
  std::map<int64_t, Cells> classes;
  for (const CocoTruth& truth : truths) classes[truth.box.label][truth.image].truths.push_back(truth);
  for (const CocoDetection& d : detections) classes[d.box.label][d.image].detections.push_back(d);
  for (auto& [label, cells] : classes) {
    for (auto& [image, cell] : cells) {
      std::stable_sort(cell.detections.begin(), cell.detections.end(),
                       [](const CocoDetection& a, const CocoDetection& b) { return a.score > b.score; });
      if (cell.detections.size() > kMaxDetections) cell.detections.resize(kMaxDetections);
      for (const CocoDetection& d : cell.detections) {
        cell.iou.emplace_back();
        for (const CocoTruth& truth : cell.truths) cell.iou.back().push_back(box_iou(d.box, truth.box, truth.crowd));
      }
    }
  }
  return classes;
}

}  // namespace

double box_iou(const ObjectBox& a, const ObjectBox& b, bool crowd) {
  const double width = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
  const double height = std::min(a.y1, b.y1) - std::max(a.y0, b.y0);
  if (width <= 0 || height <= 0) return 0;
  const double both = width * height;
  return both / (crowd ? a.area() : a.area() + b.area() - both);
}

CocoScores coco_evaluate(const std::vector<CocoTruth>& truths, const std::vector<CocoDetection>& detections) {
  const std::map<int64_t, Cells> classes = sort_into_cells(truths, detections);
  const Averages all = average(classes, kAll, kMaxDetections), small = average(classes, kSmall, kMaxDetections);
  const Averages medium = average(classes, kMedium, kMaxDetections), large = average(classes, kLarge, kMaxDetections);
  CocoScores scores;
  scores.ap = all.mean_precision(), scores.ap50 = all.precision[0], scores.ap75 = all.precision[5];
  scores.ap_small = small.mean_precision(), scores.ap_medium = medium.mean_precision();
  scores.ap_large = large.mean_precision();
  scores.ar1 = average(classes, kAll, 1).mean_recall(), scores.ar10 = average(classes, kAll, 10).mean_recall();
  scores.ar100 = all.mean_recall(), scores.ar_small = small.mean_recall();
  scores.ar_medium = medium.mean_recall(), scores.ar_large = large.mean_recall();
  return scores;
}

}  // namespace addp
