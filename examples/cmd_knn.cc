// The features are those of the linear probe: the mean over patch tokens, and means over the cells of a coarse grid.
#include "examples/cmd_knn.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "addp/knn.h"
#include "examples/features.h"
#include "examples/progress.h"
#include "examples/results.h"

namespace addp {
namespace {

int64_t at_most(int64_t wanted, int64_t there) { return wanted > 0 ? std::min(wanted, there) : there; }

}  // namespace

int cmd_knn(const KnnOptions& options) {
  apply(options.common);
  const Options on = network_options(options.common);
  const auto system = open_system(options.run, on, options.random_weights ? Weights::random : Weights::trained);
  const RunConfig& run = system->run();
  const std::string data = options.data.data.empty() ? run.data : options.data.data;
  const auto train_data = open_dataset(data, Split::train, run.config.image_size);
  const auto test_data = open_dataset(data, Split::test, run.config.image_size);
  const int64_t cells = std::gcd(system->grid(), kFeatureCells), classes = train_data->classes();
  const FrozenFeatures train =
      frozen_features(*system, cells, *train_data, at_most(options.train, train_data->size()), "features, train", on);
  const FrozenFeatures test =
      frozen_features(*system, cells, *test_data, at_most(options.test, test_data->size()), "features, test", on);

  const KnnConfig knn = {options.k, options.temperature};
  const auto accuracy = [&](const Tensor& x, const Tensor& queries) {
    return format_percent(knn_accuracy(x, train.labels, queries, test.labels, classes, knn));
  };
  const std::string whose = system->name() + (options.random_weights ? " features, random weights" : " features");
  const Figures figures = {
      {concat_text("k-NN on ", whose, ", mean over patch tokens"),
       accuracy(mean_of_cells(train.grid, cells), mean_of_cells(test.grid, cells))},
      {concat_text("k-NN on ", whose, ", ", cells, " x ", cells, " grid"), accuracy(train.grid, test.grid)},
      {"k-NN on raw pixels", accuracy(train.pixels, test.pixels)}};
  save_figures(options.run, options.random_weights ? "knn_random" : "knn", figures);
  for (const auto& [name, value] : figures) std::printf("%-56s %s\n", (name + ":").c_str(), value.c_str());
  std::printf("(test accuracy; %lld neighbours by cosine, %s; %lld training, %lld test images)\n",
              static_cast<long long>(options.k),
              options.temperature > 0 ? concat_text("temperature ", options.temperature).c_str() : "equal votes",
              static_cast<long long>(train.labels.dim(0)), static_cast<long long>(test.labels.dim(0)));
  return 0;
}

}  // namespace addp
