// How good the images of a run are, next to the test split of a data set: a generating system's by FID, KID, Inception
// score, precision and recall (nn/metrics.h), a tokenizer's reconstructions by PSNR, SSIM (nn/image_quality.h) and
// rFID. Every figure depends on N and on the feature network, so both stay with it, and so does the same figure of N
// other real images: the floor that nothing can be expected to beat.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "data/dataset.h"
#include "examples/feature_network.h"
#include "examples/metrics.h"
#include "examples/options.h"
#include "examples/results.h"
#include "examples/systems.h"

namespace addp {

// Figures by key. Of generated images:
//   fid                 Frechet distance of features; lower is better, as for
//   kid                 mean of KID over 100 random subsets of 1000 images; below N = 1001 of all at once
//   score               Inception score of all N in one split; higher is better, as for
//   precision, recall   with 3 neighbours, in [0, 1]
//   fid_floor, kid_floor, score_floor, precision_floor, recall_floor   the same of N other test images
// Of a tokenizer:
//   psnr, ssim          means over the N test images; dB, and at most 1
//   rfid, fid_floor     rfid: of the reconstructions and the very same test images, 0 if nothing were lost
struct Evaluation {
  std::string subject;      // the system's name, e.g. "ADDP", or "tokenizer", or "images"
  std::string data;         // whose test split was compared with
  std::string network;      // the feature network's name
  int64_t n = 0;            // images of each kind
  double draw_seconds = 0;  // time to draw an image; 0 for what is not drawn
  Scalars values;

  double value(const std::string& key) const;  // NaN where there is none
};

// N test images to compare with, and N others. Both follow from the data set and N alone.
struct ComparisonImages {
  std::shared_ptr<const Dataset> chosen, other;
};
ComparisonImages comparison_images(const std::string& data, int64_t image_size, int64_t n);

// As picture files hold them: rounded to 8 bits, so that a run's images and its PNG files get the very same figures.
// images: [N, 3, H, W], clamped to [0, 1], any device -> the same shape, f32 on the CPU. Throws Error(non_finite).
Tensor as_pictures(const Tensor& images);

// Keeps the feature network, and the features of real images, from one judgement to the next. All images pass the
// network in batches of options.batch: rounding in convolutions depends on how many go together.
class Evaluator {
 public:
  // Uses features, data, count, batch and common.{device, seed} of the options. Throws what open_feature_network does.
  explicit Evaluator(const EvaluateOptions& options);

  // A run of a generating system or of a tokenizer. Throws Error(usage) for other runs, and when the test split or N
  // are too small.
  Evaluation run(const std::string& run_folder);
  // A system that is open already, e.g. with other settings of its sampler.
  Evaluation system(const System& system);
  // Images in a folder, N of them evenly spread over it; real ones are read at the first one's size.
  Evaluation images(const std::string& folder);

 private:
  struct Reference {
    ComparisonImages images;
    ImageFeatures chosen, other;
  };

  Evaluation tokenizer(const std::string& run_folder, const RunConfig& run);
  std::string data_or(const std::string& otherwise) const;
  int64_t image_count(const std::string& data, int64_t image_size, int64_t at_most) const;
  const Reference& reference(const std::string& data, int64_t image_size, int64_t n);
  ImageFeatures features_of(const Dataset& images, int64_t image_size, const char* name) const;
  Scalars generation_figures(const ImageFeatures& made, const Reference& real) const;

  EvaluateOptions options_;
  Options on_;
  std::unique_ptr<FeatureNetwork> network_;
  std::map<std::tuple<std::string, int64_t, int64_t>, Reference> references_;
};

// The two steps of `addp evaluate --run RUN`: judging, and writing what was found into the run's folder.
Evaluation evaluate_run(const std::string& run_folder, const EvaluateOptions& options);
// RUN/evaluate.json: {"subject": .., "data": .., "network": .., "n": .., "draw_seconds": .., and each value by its
// key}; and, as shown by figures_of, RUN/results.json for the report.
void save_evaluation(const std::string& run_folder, const Evaluation& evaluation);
// Throws Error(data) when the run has no evaluate.json or a malformed one.
Evaluation read_evaluation(const std::string& run_folder);
// For people: {"FID", "12.3 (real images: 0.9)"}, ...
Figures figures_of(const Evaluation& evaluation);

}  // namespace addp
