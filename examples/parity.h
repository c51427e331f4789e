// What the parity checks share: the folder of reference files, and the report of how far this library is from them.
// parity_models.cc has the checks of the method's models, parity_training.cc those of fine-tuning and of the GAN.
#pragma once
#include <iosfwd>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "addp/config.h"
#include "nn/state_dict.h"
#include "tensor/safetensors.h"

namespace addp::parity {

constexpr double kToleranceF64 = 1e-6, kToleranceF32 = 1e-4;

// A folder of reference files. File names are given without ".safetensors". Whatever is missing is Error(data).
class Golden {
 public:
  explicit Golden(std::string folder) : folder_(std::move(folder)) {}

  const TensorFile& file(const std::string& name);
  // An input in the precision of `options`; integers stay integers. Counts as covered.
  Tensor input(const std::string& file, const std::string& name, Options options);
  // A reference value as stored. Counts as covered.
  Tensor expected(const std::string& file, const std::string& name);
  bool has(const std::string& file, const std::string& name) { return this->file(file).tensors.contains(name); }
  // Names in the file that begin with prefix, without it.
  std::vector<std::string> names_after(const std::string& file, const std::string& prefix);
  // Names in the files read so far, of those that end in "_expected", that no check looked at: "file name".
  std::vector<std::string> uncovered() const;

  std::string text(const std::string& file, const std::string& key);
  bool has_text(const std::string& file, const std::string& key) { return this->file(file).metadata.contains(key); }
  int64_t integer(const std::string& file, const std::string& key);
  // The number that follows a word in a metadata text: number_after("clip norm ") of "..., clip norm 0.5, lr" is 0.5.
  double number_after(const std::string& file, const std::string& key, const std::string& word);

  // The sizes of all models, with official ids; heads of the decoder are those of the encoder unless
  // decoder_num_heads is there. Widths that only a tensor's shape tells are taken from `weights`.
  Config config(const std::string& weights);

  // Gives every tensor of a module its value from a weight file; names and shapes must agree exactly.
  template <class Module>
  void load(Module& module, const std::string& weights) {
    load_state_dict(module, file(weights).tensors, {path(weights), false});
  }

 private:
  const Tensor& find(const std::string& file, const std::string& name);
  std::string path(const std::string& file) const { return folder_ + "/" + file + ".safetensors"; }

  std::string folder_;
  std::map<std::string, TensorFile> files_;
  std::set<std::pair<std::string, std::string>> covered_;
};

// Largest errors by file and tensor, in both precisions.
class Report {
 public:
  Report(Golden& golden, std::ostream& out) : golden_(golden), out_(out) {}

  // The precision in which the values that come now were computed.
  void begin(DType precision) { precision_ = precision; }
  // Largest |actual - reference| over the reference's largest entry; infinite for NaN or when the shape differs, in
  // which extents of 1 do not count. A gradient that is 0 but for the reference's own rounding (a bias that the next
  // normalisation takes out again) is measured against the largest gradient of its file.
  void compare(const std::string& file, const std::string& name, const Tensor& actual);
  // Some rows of a reference [B, N, D] only. rows: [B, M] i64, actual: [B, M, D].
  void compare_rows(const std::string& file, const std::string& name, const Tensor& actual, const Tensor& rows);
  // Codes and masks: how many elements differ.
  void compare_exactly(const std::string& file, const std::string& name, const Tensor& actual);
  // grad.PREFIX* of the file against the parameters' gradients; a parameter without gradient counts as zeros.
  void compare_gradients(const std::string& file, const std::vector<NamedVar>& parameters,
                         const std::string& prefix = "");

  // A line before the summary: where a computation is not simply the reference's in the present precision.
  void note(const std::string& text) { notes_.push_back(text); }

  // Prints all lines, the notes and the summary. True when everything is within the tolerances.
  bool print();

 private:
  struct Entry {
    std::string file, name;
    bool exact = false;
    double error[2] = {-1, -1};  // float64, float32; negative: not compared
    bool passed() const;
  };
  void add(const std::string& file, const std::string& name, bool exact, double error);
  void compare(const std::string& file, const std::string& name, const Tensor& actual, const Tensor& reference);
  double largest_gradient(const std::string& file);

  Golden& golden_;
  std::ostream& out_;
  DType precision_ = DType::f64;
  std::vector<Entry> entries_;
  std::vector<std::string> notes_;
  std::map<std::pair<std::string, std::string>, size_t> index_;
  std::map<std::string, double> largest_gradient_;
};

// [B, L, C] -> [B, C, H, W], L = H * W in raster order: the reference's layout of embeddings and distributions.
Tensor to_image_layout(const Tensor& x, int64_t grid);

// The checks; each computes in the precision of options.
void check_vqgan(Golden& golden, Report& report, Options options);
void check_predictor(Golden& golden, Report& report, Options options);
void check_addp(Golden& golden, Report& report, Options options);
void check_sampler(Golden& golden, Report& report, Options options);
void check_mask_ratios(Golden& golden, Report& report, Options options);
void check_classifier(Golden& golden, Report& report, Options options);
void check_fine_tuning(Golden& golden, Report& report, Options options);
void check_gan(Golden& golden, Report& report, Options options);

}  // namespace addp::parity
