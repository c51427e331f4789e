// Axes, measurement, tables and plots of scaling.
#include "bench/scaling.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "bench/cases.h"
#include "data/image.h"
#include "examples/chart.h"
#include "tensor/allocator.h"
#include "tensor/files.h"
#include "tensor/parallel.h"

namespace addp {
namespace {

using Json = nlohmann::ordered_json;

// What one point of a plot is measured with.
struct Sizes {
  std::vector<std::string> fields;  // name=value over the demo preset
  int64_t batch = 16;
  int threads = 0;  // 0: the team as it is
};

struct Axis {
  const char *name, *label;
  std::vector<int64_t> values;
  std::vector<std::string> steps;
  Sizes (*sizes)(int64_t value);
  bool per_image;  // times are divided by the batch
};

std::string assignment(const char* name, int64_t value) { return std::string(name) + "=" + std::to_string(value); }

std::vector<Axis> all_axes() {
  std::vector<int64_t> threads{1};
  while (2 * threads.back() <= static_cast<int64_t>(std::thread::hardware_concurrency()))
    threads.push_back(2 * threads.back());
  const auto image_of_side = [](int64_t side) { return Sizes{{assignment("image_size", side)}}; };
  return {
      {"image_size", "image size, pixels", {16, 32, 48, 64, 96}, {"vqgan", "predictor", "addp"}, image_of_side, true},
      {"tokens",
       "tokens",
       {16, 64, 144, 256, 576, 1024},
       {"transformer"},
       [](int64_t tokens) {
         return Sizes{{assignment("image_size", 4 * std::llround(std::sqrt(static_cast<double>(tokens))))}};
       },
       true},
      {"width",
       "width",
       {64, 128, 192, 256, 384, 512},
       {"transformer", "addp"},
       [](int64_t width) {
         Sizes sizes;
         for (const std::string part : {"predictor.", "model."}) {
           sizes.fields.push_back(assignment((part + "width").c_str(), width));
           sizes.fields.push_back(assignment((part + "heads").c_str(), width / 32));
           sizes.fields.push_back(assignment((part + "decoder_heads").c_str(), width / 32));
         }
         return sizes;
       },
       true},
      {"batch",
       "batch",
       {1, 2, 4, 8, 16, 32, 64},
       {"vqgan", "predictor", "addp"},
       [](int64_t batch) {
         return Sizes{{}, batch};
       },
       true},
      {"threads",
       "threads",
       threads,
       {"vqgan", "vqgan_gan", "predictor", "addp", "sample"},
       [](int64_t count) {
         return Sizes{{}, 32, static_cast<int>(count)};
       },
       false}};
}

// Median seconds of a step.
double seconds_of(const std::string& step, const Sizes& sizes) {
  const BenchCase one = make_step_case(step, step_config("demo", sizes.fields), sizes.batch, "");
  std::vector<double> times;
  double total = 0;
  one.run();
  while (times.size() < 3 || (total < 0.6 && times.size() < 25)) {
    const auto begin = std::chrono::steady_clock::now();
    one.run();
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    total += times.back();
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size()) / 2, times.end());
  return times[times.size() / 2];
}

void measure(const Axis& axis, const std::string& folder) {
  const int before = num_threads();
  std::vector<Series> curves;
  for (const std::string& step : axis.steps) curves.push_back({step, {}, {}});
  std::printf("\n%s: ms %s; in brackets the exponent since the row above\n%10s", axis.label,
              axis.per_image ? "per image" : "per step of 32 images", axis.name);
  for (const std::string& step : axis.steps) std::printf(" %18s", step.c_str());
  for (int64_t value : axis.values) {
    const Sizes sizes = axis.sizes(value);
    if (sizes.threads > 0) set_num_threads(sizes.threads);
    std::printf("\n%10lld", static_cast<long long>(value));
    for (Series& curve : curves) {
      release_cached_memory();
      const double ms = 1e3 * seconds_of(curve.name, sizes) / static_cast<double>(axis.per_image ? sizes.batch : 1);
      std::printf(" %10.3f", ms);
      if (curve.x.empty()) std::printf("        ");
      else
        std::printf(" (%5.2f)", std::log(ms / curve.y.back()) / std::log(static_cast<double>(value) / curve.x.back()));
      std::fflush(stdout);
      curve.x.push_back(static_cast<double>(value));
      curve.y.push_back(ms);
    }
  }
  std::printf("\n");
  set_num_threads(before);

  ChartOptions options;
  options.title = concat_text("training step, demo preset, ", before, " threads");
  if (std::string(axis.name) == "threads") options.title = "steps of 32 images, demo preset";
  options.x_label = axis.label, options.y_label = axis.per_image ? "ms per image" : "ms";
  options.log_y = std::string(axis.name) != "threads" && std::string(axis.name) != "batch";
  options.width = 640;
  const Bitmap bitmap = chart_bitmap(curves, options);
  const std::string path = folder + "/scaling_" + axis.name;
  write_png(path + ".png", {bitmap.height, bitmap.width, 3, bitmap.rgb});
  Json json = {{"x", axis.values}};
  for (const Series& curve : curves) json[curve.name] = curve.y;
  write_file_atomically(path + ".json", json.dump(1) + "\n");
}

}  // namespace

void measure_scaling(const std::string& folder, const std::vector<std::string>& names) {
  const std::vector<Axis> axes = all_axes();
  for (const std::string& name : names) {
    check_as(ErrorKind::usage, std::any_of(axes.begin(), axes.end(), [&](const Axis& a) { return a.name == name; }),
             "scaling: unknown axis '", name, "': expected image_size, tokens, width, batch or threads");
  }
  for (const Axis& axis : axes) {
    if (names.empty() || std::count(names.begin(), names.end(), axis.name)) measure(axis, folder);
  }
}

}  // namespace addp
