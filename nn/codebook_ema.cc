// Moving averages of the codebook. The arithmetic on K x Dz numbers runs on the host; counting and summing over all
// tokens are kernels.
#include "nn/codebook_ema.h"

#include <algorithm>
#include <cmath>

#include "autograd/codes.h"
#include "nn/kmeans.h"

namespace addp {

// ---- Usage

void CodebookUsage::add(const Tensor& codes) {
  for (int64_t code : to_vector<int64_t>(codes)) {
    check(code >= 0 && code < static_cast<int64_t>(counts_.size()), "codebook usage: code ", code, " of ",
          counts_.size());
    ++counts_[static_cast<size_t>(code)];
  }
}

double CodebookUsage::used_share() const {
  const auto used = std::count_if(counts_.begin(), counts_.end(), [](int64_t n) { return n > 0; });
  return static_cast<double>(used) / static_cast<double>(counts_.size());
}

double CodebookUsage::perplexity() const {
  double total = 0, entropy = 0;
  for (int64_t n : counts_) total += static_cast<double>(n);
  if (total == 0) return 0;
  for (int64_t n : counts_) {
    const double p = static_cast<double>(n) / total;
    if (n > 0) entropy -= p * std::log(p);
  }
  return std::exp(entropy);
}

// ---- Averages

CodebookEma::CodebookEma(VectorQuantizer& quantizer, const CodebookEmaConfig& config)
    : config(config),
      codebook(quantizer.embedding.weight),
      cluster_size(buffer({codebook.dim(0)}, codebook.options(), 1)),
      embed_avg(Var(clone(codebook.value()))) {
  codebook.set_needs_grad(false);
}

// [B, D, h, w] -> [B h w, D]
static Tensor vectors_of(const Tensor& z) {
  const NoGrad no_grad;
  return reshape(permute(Var(z), {0, 2, 3, 1}), {-1, z.dim(1)}).value();
}

static void write(const Var& var, const std::vector<double>& values) {
  copy_into(var.value(), from_vector(values, var.shape()));
}

void CodebookEma::start(const Tensor& z, Rng& rng) {
  const int64_t K = codebook.dim(0), D = codebook.dim(1);
  const Tensor vectors = vectors_of(z);
  const std::vector<double> rows = to_vector<double>(vectors);
  const auto [centroids, counts] = kmeans(vectors, random_rows(rows, D, K, rng), config.kmeans_iterations, rng);
  // Averages in step with the centroids: embed_avg = centroid * count.
  std::vector<double> totals = centroids;
  for (size_t i = 0; i < totals.size(); ++i) totals[i] *= counts[i / static_cast<size_t>(D)];
  write(codebook, centroids);
  write(cluster_size, counts);
  write(embed_avg, totals);
}

int64_t CodebookEma::update(const Tensor& z, const Tensor& codes, Rng& rng) {
  const int64_t K = codebook.dim(0), D = codebook.dim(1);
  const Tensor vectors = vectors_of(z);
  Tensor count, sum;
  code_sums(vectors, codes.reshape({-1}), K, count, sum);
  std::vector<double> sizes = to_vector<double>(cluster_size.value()), averages = to_vector<double>(embed_avg.value());
  const std::vector<double> counts = to_vector<double>(count), sums = to_vector<double>(sum);
  for (size_t k = 0; k < sizes.size(); ++k) sizes[k] += (1 - config.decay) * (counts[k] - sizes[k]);
  for (size_t i = 0; i < averages.size(); ++i) averages[i] += (1 - config.decay) * (sums[i] - averages[i]);

  const double mean_count = static_cast<double>(vectors.dim(0)) / static_cast<double>(K);
  const double threshold = std::min(config.revive_count, config.revive_share * mean_count);
  std::vector<size_t> dead;
  for (size_t k = 0; k < sizes.size(); ++k) {
    if (sizes[k] < threshold) dead.push_back(k);
  }
  if (!dead.empty()) {
    // A revived code starts with an average code's count, so that it has time to find users.
    const std::vector<double> rows = random_rows(to_vector<double>(vectors), D, static_cast<int64_t>(dead.size()), rng);
    for (size_t i = 0; i < dead.size(); ++i) {
      sizes[dead[i]] = mean_count;
      for (size_t d = 0; d < static_cast<size_t>(D); ++d)
        averages[dead[i] * static_cast<size_t>(D) + d] = mean_count * rows[i * static_cast<size_t>(D) + d];
    }
  }
  write(cluster_size, sizes);
  write(embed_avg, averages);
  write_codebook();
  return static_cast<int64_t>(dead.size());
}

// codebook = embed_avg / cluster_size; the revival threshold keeps the latter away from 0, but for revive_count 0.
void CodebookEma::write_codebook() {
  constexpr double kSmallestSize = 1e-5;
  const auto D = static_cast<size_t>(codebook.dim(1));
  const std::vector<double> sizes = to_vector<double>(cluster_size.value());
  std::vector<double> values = to_vector<double>(embed_avg.value());
  for (size_t i = 0; i < values.size(); ++i) values[i] /= std::max(sizes[i / D], kSmallestSize);
  write(codebook, values);
}

}  // namespace addp
