// Linear probe of a system's features, and of raw pixels trained the same way in the same run.
#include "examples/cmd_probe.h"

#include <chrono>
#include <cstdio>
#include <numeric>

#include "addp/recognition.h"
#include "examples/features.h"
#include "examples/progress.h"
#include "examples/results.h"

namespace addp {

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
  const int64_t cells = std::gcd(system->grid(), kFeatureCells);
  const FrozenFeatures train = frozen_features(*system, cells, *train_data, train_count, "features, train", on);
  const FrozenFeatures test = frozen_features(*system, cells, *test_data, test_count, "features, test", on);

  StageConfig recipe = run.config.train_probe;
  if (options.steps > 0) recipe.steps = options.steps;
  const auto accuracy = [&](const Tensor& x, const Tensor& x_test, const std::string& name) {
    const Rng rng = Rng(options.common.seed).fork("probe");
    const auto begin = std::chrono::steady_clock::now();
    const LinearProbe probe = train_linear_probe(x, train.labels, train_data->classes(), recipe, rng);
    const double share = probe_accuracy(probe, x_test, test.labels);
    std::fprintf(stderr, "%s: %lld steps in %.1f s\n", name.c_str(), static_cast<long long>(recipe.steps),
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    return format_percent(share);
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
