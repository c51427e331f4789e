// Linear probe of a system's features, and of raw pixels trained the same way in the same run.
#include "examples/cmd_probe.h"

#include <chrono>
#include <cstdio>
#include <numeric>

#include "addp/recognition.h"
#include "autograd/ops.h"
#include "examples/batches.h"
#include "examples/progress.h"
#include "examples/results.h"
#include "examples/systems.h"

namespace addp {
namespace {

constexpr int64_t kCells = 4;  // a side, where that divides the token grid

struct Examples {
  Tensor pixels;  // [N, 3 H W]
  Tensor grid;    // [N, cells^2 D], tokens averaged in cells x cells parts of the image
  Tensor labels;  // [N]
};

// Images of a split, each seen once, and what the system makes of them.
Examples collect(const System& system, int64_t cells, const Dataset& data, int64_t count, const char* name,
                 Options on) {
  NoGrad no_grad;
  std::vector<Var> pixels, grid, labels;
  const int64_t batch = 100;
  Progress progress(name, 0, count);
  for (int64_t begin = 0; begin < count; begin += batch) {
    const Batch part = read_batch(data, begin, std::min(begin + batch, count), system.run().config.image_size);
    const Tensor images = to(part.images, on);
    grid.emplace_back(mean_over_cells(system.tokens(images), cells));
    pixels.emplace_back(images.reshape({images.dim(0), -1}));
    labels.emplace_back(part.labels);
    progress.update(std::min(begin + batch, count), {}, part.images.dim(0));
  }
  std::vector<int64_t> all;
  for (const Var& part : labels) {
    const std::vector<int64_t> some = to_vector<int64_t>(part.value());
    all.insert(all.end(), some.begin(), some.end());
  }
  const int64_t n = static_cast<int64_t>(all.size());
  return {concat(pixels, 0).value(), concat(grid, 0).value(), from_vector(all, {n})};
}

// The mean over all tokens, from the means of the cells. -> [N, D]
Tensor mean_of_cells(const Tensor& grid, int64_t cells) {
  return mean_over_tokens(grid.reshape({grid.dim(0), cells * cells, -1}));
}

}  // namespace

int cmd_probe(const ProbeOptions& options) {
  apply(options.common);
  const Options on = network_options(options.common);
  const auto system = open_system(options.run, on, options.random_weights ? Weights::random : Weights::trained);
  const RunConfig& run = system->run();
  const int64_t size = run.config.image_size;
  const std::string data = options.data.data.empty() ? run.data : options.data.data;
  const auto train_data = open_dataset(data, Split::train, size);
  const auto test_data = open_dataset(data, Split::test, size);
  const int64_t train_count = options.train > 0 ? std::min(options.train, train_data->size()) : train_data->size();
  const int64_t test_count = options.test > 0 ? std::min(options.test, test_data->size()) : test_data->size();
  const int64_t cells = std::gcd(system->grid(), kCells);
  const Examples train = collect(*system, cells, *train_data, train_count, "features, train", on);
  const Examples test = collect(*system, cells, *test_data, test_count, "features, test", on);

  StageConfig recipe = run.config.train_probe;
  if (options.steps > 0) recipe.steps = options.steps;
  const auto accuracy = [&](const Tensor& x, const Tensor& x_test, const std::string& name) {
    const Rng rng = Rng(options.common.seed).fork("probe");
    const auto begin = std::chrono::steady_clock::now();
    const LinearProbe probe = train_linear_probe(x, train.labels, train_data->classes(), recipe, rng);
    const double percent = 100 * probe_accuracy(probe, x_test, test.labels);
    std::fprintf(stderr, "%s: %lld steps in %.1f s\n", name.c_str(), static_cast<long long>(recipe.steps),
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    char text[32];
    std::snprintf(text, sizeof text, "%.2f %%", percent);
    return std::string(text);
  };
  const std::string whose = system->name() + (options.random_weights ? " features, random weights" : " features");
  const std::string grid_name = concat_text("linear probe on ", whose, ", ", cells, " x ", cells, " grid");
  const Figures figures = {
      {grid_name, accuracy(train.grid, test.grid, grid_name)},
      {concat_text("linear probe on ", whose, ", mean over patch tokens"),
       accuracy(mean_of_cells(train.grid, cells), mean_of_cells(test.grid, cells), "mean over patch tokens")},
      {"linear probe on raw pixels", accuracy(train.pixels, test.pixels, "raw pixels")}};
  save_figures(options.run, options.random_weights ? "probe_random" : "probe", figures);
  for (const auto& [name, value] : figures) std::printf("%-56s %s\n", (name + ":").c_str(), value.c_str());
  std::printf("(test accuracy; %lld training, %lld test images, %lld steps of %lld each)\n",
              static_cast<long long>(train_count), static_cast<long long>(test_count),
              static_cast<long long>(recipe.steps), static_cast<long long>(recipe.batch));
  return 0;
}

}  // namespace addp
