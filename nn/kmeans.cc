#include "nn/kmeans.h"

#include <algorithm>

#include "autograd/codes.h"

namespace addp {

std::vector<double> random_rows(const std::vector<double>& rows, int64_t D, int64_t count, Rng& rng) {
  const auto N = static_cast<int64_t>(rows.size()) / D;
  const std::vector<int64_t> order = permutation(N, rng);
  std::vector<double> chosen;
  chosen.reserve(static_cast<size_t>(count * D));
  for (int64_t i = 0; i < count; ++i) {
    const auto row = rows.begin() + order[static_cast<size_t>(i % N)] * D;
    chosen.insert(chosen.end(), row, row + D);
  }
  return chosen;
}

Clusters kmeans(const Tensor& vectors, std::vector<double> start, int64_t iterations, Rng& rng) {
  const int64_t D = vectors.dim(1), K = static_cast<int64_t>(start.size()) / D;
  const std::vector<double> rows = to_vector<double>(vectors);
  Clusters found{std::move(start), std::vector<double>(static_cast<size_t>(K), 1)};
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    const Tensor centroids = to(from_vector(found.centroids, {K, D}), vectors.options());
    Tensor count, sum;
    code_sums(vectors, nearest_codes(vectors, centroids), K, count, sum);
    found.counts = to_vector<double>(count);
    const std::vector<double> sums = to_vector<double>(sum);
    for (int64_t k = 0; k < K; ++k) {
      const auto i = static_cast<size_t>(k);
      if (found.counts[i] == 0) {
        const std::vector<double> row = random_rows(rows, D, 1, rng);
        std::copy(row.begin(), row.end(), found.centroids.begin() + k * D);
        found.counts[i] = 1;
      } else {
        for (int64_t d = 0; d < D; ++d) {
          const auto j = static_cast<size_t>(k * D + d);
          found.centroids[j] = sums[j] / found.counts[i];
        }
      }
    }
  }
  return found;
}

}  // namespace addp
