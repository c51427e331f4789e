// Training a codebook by moving averages instead of gradients (van den Oord et al. 2017, appendix A.1), with what keeps
// it alive: a start from data, revival of codes that nobody uses, and figures that show the use.
#pragma once
#include <string>

#include "nn/vqgan.h"

namespace addp {

// How evenly codes are used, over any number of batches.
class CodebookUsage {
 public:
  explicit CodebookUsage(int64_t codebook_size) : counts_(static_cast<size_t>(codebook_size)) {}

  void add(const Tensor& codes);  // [...] i64 in [0, K)
  void reset() { counts_.assign(counts_.size(), 0); }
  double used_share() const;  // share of codes that occurred, in [0, 1]
  double perplexity() const;  // exp of the entropy of the codes' frequencies, in [1, K]; 0 before the first add

 private:
  std::vector<int64_t> counts_;
};

struct CodebookEmaConfig {
  double decay = 0.99;
  // A code is dead when its average count falls below this share of the mean count (tokens a batch / K), or below
  // revive_count, whichever is lower.
  double revive_share = 0.2;
  double revive_count = 2;
  int64_t kmeans_iterations = 10;  // of start()
};

// The averages belong to training, as an optimizer's moments do: they are not among the model's tensors.
struct CodebookEma {
  // Takes the codebook out of gradient training (needs_grad off).
  CodebookEma(VectorQuantizer& quantizer, const CodebookEmaConfig& config);

  // k-means on encoder outputs; the codebook becomes the centroids. z: [B, Dz, h, w], best with many more vectors than
  // K.
  void start(const Tensor& z, Rng& rng);

  // Moves the averages towards this batch, revives dead codes with random vectors of it, and writes the codebook.
  //   z: [B, Dz, h, w], what the quantizer read; codes: [B, L], what it found -> number of revived codes
  int64_t update(const Tensor& z, const Tensor& codes, Rng& rng);

  // The state for checkpoints.
  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "cluster_size", cluster_size, Role::buffer);
    f(prefix + "embed_avg", embed_avg, Role::buffer);
  }

  CodebookEmaConfig config;
  Var codebook;      // [K, Dz], the quantizer's
  Var cluster_size;  // [K], average count of each code
  Var embed_avg;     // [K, Dz], average sum of its vectors

 private:
  void write_codebook();
};

}  // namespace addp
