#include "examples/evaluate.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>

#include "data/subset.h"
#include "examples/batches.h"
#include "examples/frozen.h"
#include "examples/progress.h"
#include "nn/image_quality.h"
#include "nn/metrics.h"

namespace addp {
namespace {

constexpr int64_t kDefaultCount = 2000, kNeighbours = 3, kLeast = kNeighbours + 1;
constexpr KidOptions kKid;

bool is_tokenizer(const std::string& stage) { return stage == "vqgan" || stage == "vit-vqgan"; }
bool is_generator(const std::string& stage) {
  return stage == "addp" || stage == "predictor" || stage == "gpt" || stage == "igpt";
}

double fid(const ImageFeatures& a, const ImageFeatures& b) {
  return frechet_distance(FeatureMoments(a.features), FeatureMoments(b.features));
}

// name + suffix: how `made` compares with `real`.
void append_figures(Scalars& values, const std::string& suffix, const ImageFeatures& made, const ImageFeatures& real,
                    const Rng& rng) {
  const int64_t n = made.features.dim(0);
  const KidOptions kid = n > kKid.subset_size ? kKid : KidOptions{.subsets = 1, .subset_size = n};
  const PrecisionRecall pr = precision_recall(made.features, real.features, kNeighbours);
  values.emplace_back("fid" + suffix, fid(made, real));
  values.emplace_back("kid" + suffix, kernel_distance(made.features, real.features, kid, rng).mean);
  values.emplace_back("score" + suffix, inception_score(made.logits, 1).mean);
  values.emplace_back("precision" + suffix, pr.precision);
  values.emplace_back("recall" + suffix, pr.recall);
}

}  // namespace

double Evaluation::value(const std::string& key) const {
  for (const auto& [name, v] : values) {
    if (name == key) return v;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

ComparisonImages comparison_images(const std::string& data, int64_t image_size, int64_t n) {
  const auto test = open_dataset(data, Split::test, image_size);
  check(2 * n <= test->size(), data, ": has ", test->size(), " test images, ", 2 * n, " are needed");
  Rng rng = Rng(0).fork("comparison images");
  const std::vector<int64_t> order = permutation(test->size(), rng);
  const auto part = [&](int64_t begin) {
    return std::make_shared<Subset>(test, std::vector<int64_t>(order.begin() + begin, order.begin() + begin + n));
  };
  return {part(0), part(n)};
}

Tensor as_pictures(const Tensor& images) {
  check_as(ErrorKind::non_finite, all_finite(images), "evaluate: images hold numbers that are not finite");
  const Tensor source = to(images, Options());
  const Shape one = {3, images.dim(2), images.dim(3)};
  Tensor pictures = empty(images.shape(), source);
  for (int64_t i = 0; i < images.dim(0); ++i) {
    const int64_t begin = i * one.numel();
    copy_into(pictures.view(begin, one), to_tensor(to_image(source.view(begin, one))));
  }
  return pictures;
}

Evaluator::Evaluator(const EvaluateOptions& options)
    : options_(options), on_(network_options(options.common)), network_(open_feature_network(options.features, on_)) {}

Evaluation Evaluator::run(const std::string& run_folder) {
  const RunConfig run = read_run_config(run_folder);
  check_as(ErrorKind::usage, is_tokenizer(run.stage) || is_generator(run.stage), run_folder, ": is a run of stage ",
           run.stage,
           ", which makes no images; expected addp, predictor, gpt or igpt, or the tokenizers vqgan and vit-vqgan");
  if (is_tokenizer(run.stage)) return tokenizer(run_folder, run);
  return system(*open_system(run_folder, run, on_));
}

Evaluation Evaluator::system(const System& system) {
  const RunConfig& run = system.run();
  const std::string data = data_or(run.data);
  const int64_t size = run.config.image_size, n = image_count(data, size, std::numeric_limits<int64_t>::max());
  const Reference& real = reference(data, size, n);
  Rng rng = Rng(options_.common.seed).fork("sample");
  FeatureCollector drawn(*network_);
  std::chrono::duration<double> drawing(0);
  Progress progress("draw " + system.name(), 0, n);
  for (int64_t done = 0; done < n; done += options_.batch) {
    const int64_t B = std::min(options_.batch, n - done);
    const auto begin = std::chrono::steady_clock::now();
    const Tensor images = as_pictures(system.draw(B, rng));
    drawing += std::chrono::steady_clock::now() - begin;
    drawn.add(images);
    progress.update(done + B, {}, B);
  }
  progress.finish();
  return {system.name(),
          data,
          network_->name(),
          n,
          drawing.count() / static_cast<double>(n),
          generation_figures(drawn.all(), real)};
}

Evaluation Evaluator::images(const std::string& folder) {
  const auto images = open_images(folder);
  const std::string data = data_or(network_->data());
  check_as(ErrorKind::usage, !data.empty(), "--data is missing: the data set that the images of ", folder,
           " are compared with");
  check_as(ErrorKind::data, images->size() >= kLeast, folder, ": holds ", images->size(), " images; at least ", kLeast,
           " are needed");
  const Image first = images->read(0).image;
  const int64_t size = std::min(first.height, first.width);
  check_as(ErrorKind::usage, options_.count <= images->size(), "--count ", options_.count, ": ", folder, " holds ",
           images->size(), " images");
  const int64_t n = image_count(data, size, images->size());
  std::vector<int64_t> spread;
  for (int64_t i = 0; i < n; ++i) spread.push_back(i * images->size() / n);
  const Reference& real = reference(data, size, n);
  const ImageFeatures found = features_of(Subset(images, spread), size, "images");
  return {"images", data, network_->name(), n, 0, generation_figures(found, real)};
}

Evaluation Evaluator::tokenizer(const std::string& run_folder, const RunConfig& run) {
  const std::string data = data_or(run.data);
  const int64_t size = run.config.image_size, n = image_count(data, size, std::numeric_limits<int64_t>::max());
  const auto tokenizer = load_tokenizer(run_folder, on_);
  const Reference& real = reference(data, size, n);
  FeatureCollector reconstructed(*network_);
  std::vector<double> all_psnr, all_ssim;
  Progress progress("reconstruct", 0, n);
  for (int64_t begin = 0; begin < n; begin += options_.batch) {
    const int64_t end = std::min(begin + options_.batch, n);
    const Tensor originals = read_batch(*real.images.chosen, begin, end, size).images;
    const Tensor found = as_pictures(tokenizer->decode(tokenizer->encode(to(originals, on_))));
    for (double value : psnr(found, originals)) all_psnr.push_back(value);
    for (double value : ssim(found, originals)) all_ssim.push_back(value);
    reconstructed.add(found);
    progress.update(end, {}, end - begin);
  }
  progress.finish();
  return {"tokenizer",
          data,
          network_->name(),
          n,
          0,
          {{"psnr", mean_of(all_psnr)},
           {"ssim", mean_of(all_ssim)},
           {"rfid", fid(reconstructed.all(), real.chosen)},
           {"fid_floor", fid(real.other, real.chosen)}}};
}

std::string Evaluator::data_or(const std::string& otherwise) const {
  return options_.data.data.empty() ? otherwise : options_.data.data;
}

// What was asked for, or as many as there are. The test split must have it twice: to compare with, and for the floor.
int64_t Evaluator::image_count(const std::string& data, int64_t image_size, int64_t at_most) const {
  const int64_t test = open_dataset(data, Split::test, image_size)->size();
  const std::string whole =
      concat_text(data, " has ", test, " test images, and N to compare with and N others for the floor are needed");
  check_as(ErrorKind::data, test / 2 >= kLeast, "evaluate: ", whole, ", N at least ", kLeast);
  check_as(ErrorKind::usage, options_.count == 0 || options_.count >= kLeast, "--count ", options_.count, ": at least ",
           kLeast, " images are needed (precision and recall look at ", kNeighbours, " neighbours)");
  check_as(ErrorKind::usage, options_.count <= test / 2, "--count ", options_.count, ": ", whole, ": at most ",
           test / 2);
  return options_.count > 0 ? options_.count : std::min({kDefaultCount, test / 2, at_most});
}

const Evaluator::Reference& Evaluator::reference(const std::string& data, int64_t image_size, int64_t n) {
  const auto key = std::make_tuple(data, image_size, n);
  const auto known = references_.find(key);
  if (known != references_.end()) return known->second;
  const ComparisonImages images = comparison_images(data, image_size, n);
  return references_[key] = {images, features_of(*images.chosen, image_size, "real images"),
                             features_of(*images.other, image_size, "other real images")};
}

ImageFeatures Evaluator::features_of(const Dataset& images, int64_t image_size, const char* name) const {
  FeatureCollector found(*network_);
  for_each_batch(images, options_.batch, image_size, name,
                 [&](const Batch& batch, int64_t) { found.add(batch.images); });
  return found.all();
}

Scalars Evaluator::generation_figures(const ImageFeatures& made, const Reference& real) const {
  const Rng rng = Rng(options_.common.seed).fork("kid");
  Scalars values;
  append_figures(values, "", made, real.chosen, rng);
  append_figures(values, "_floor", real.other, real.chosen, rng);
  return values;
}

Evaluation evaluate_run(const std::string& run_folder, const EvaluateOptions& options) {
  return Evaluator(options).run(run_folder);
}

}  // namespace addp
