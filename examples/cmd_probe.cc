// Linear probe of ADDP features, and of raw pixels trained the same way in the same run.
#include "examples/cmd_probe.h"

#include <chrono>
#include <cstdio>

#include "addp/recognition.h"
#include "autograd/ops.h"
#include "examples/batches.h"
#include "examples/frozen.h"
#include "examples/progress.h"
#include "examples/results.h"

namespace addp {
namespace {

struct Examples {
  Tensor pixels;    // [N, 3 H W]
  Tensor features;  // [N, D]
  Tensor labels;    // [N]
};

// All images of a split, each seen once, and what the encoder makes of them.
Examples collect(const PixelEncoder& encoder, const Dataset& data, int64_t count, int64_t image_size,
                 const char* name) {
  std::vector<Var> pixels, features, labels;
  const int64_t batch = 100;
  Progress progress(name, 0, count);
  for (int64_t begin = 0; begin < count; begin += batch) {
    const Batch part = read_batch(data, begin, std::min(begin + batch, count), image_size);
    features.emplace_back(recognition_features(encoder, part.images));
    pixels.emplace_back(part.images.reshape({part.images.dim(0), -1}));
    labels.emplace_back(part.labels);
    progress.update(std::min(begin + batch, count), {}, part.images.dim(0));
  }
  std::vector<int64_t> all;
  for (const Var& part : labels) {
    const std::vector<int64_t> some = to_vector<int64_t>(part.value());
    all.insert(all.end(), some.begin(), some.end());
  }
  const int64_t n = static_cast<int64_t>(all.size());
  return {concat(pixels, 0).value(), concat(features, 0).value(), from_vector(all, {n})};
}

}  // namespace

int cmd_probe(const ProbeOptions& options) {
  apply(options.common);
  const RunConfig run = read_run_config(options.run);
  const auto model = load_addp(options.run);
  const int64_t size = run.config.image_size;
  const std::string data = options.data.data.empty() ? run.data : options.data.data;
  const auto train_data = open_dataset(data, Split::train, size);
  const auto test_data = open_dataset(data, Split::test, size);
  const int64_t train_count = options.train > 0 ? std::min(options.train, train_data->size()) : train_data->size();
  const int64_t test_count = options.test > 0 ? std::min(options.test, test_data->size()) : test_data->size();
  Examples train, test;
  {
    NoGrad no_grad;
    train = collect(model->encoder, *train_data, train_count, size, "features, train");
    test = collect(model->encoder, *test_data, test_count, size, "features, test");
  }

  StageConfig recipe = run.config.train_probe;
  if (options.steps > 0) recipe.steps = options.steps;
  const auto accuracy = [&](const Tensor& x, const Tensor& x_test, const char* name) {
    const Rng rng = Rng(options.common.seed).fork("probe");
    const auto begin = std::chrono::steady_clock::now();
    const LinearProbe probe = train_linear_probe(x, train.labels, train_data->classes(), recipe, rng);
    const double percent = 100 * probe_accuracy(probe, x_test, test.labels);
    std::fprintf(stderr, "probe on %s: %lld steps in %.1f s\n", name, static_cast<long long>(recipe.steps),
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    return percent;
  };
  const double on_features = accuracy(train.features, test.features, "ADDP features");
  const double on_pixels = accuracy(train.pixels, test.pixels, "raw pixels");
  char text[2][32];
  std::snprintf(text[0], sizeof text[0], "%.2f %%", on_features);
  std::snprintf(text[1], sizeof text[1], "%.2f %%", on_pixels);
  save_figures(options.run, "probe",
               {{"linear probe, ADDP features", text[0]},
                {"linear probe, raw pixels", text[1]},
                {"probe images", concat_text(train_count, " train, ", test_count, " test")}});
  std::printf(
      "linear probe on ADDP features: %s\nlinear probe on raw pixels:    %s\n(%lld training, %lld test images, %lld "
      "steps of %lld each)\n",
      text[0], text[1], static_cast<long long>(train_count), static_cast<long long>(test_count),
      static_cast<long long>(recipe.steps), static_cast<long long>(recipe.batch));
  return 0;
}

}  // namespace addp
