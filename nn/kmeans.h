// Lloyd's k-means, from start centroids that the caller chooses.
#pragma once
#include <vector>

#include "tensor/random.h"
#include "tensor/tensor.h"

namespace addp {

// `count` rows of D numbers chosen at random, all different rows while there are enough.
std::vector<double> random_rows(const std::vector<double>& rows, int64_t D, int64_t count, Rng& rng);

struct Clusters {
  std::vector<double> centroids;  // [K, D]
  std::vector<double> counts;     // [K], vectors of each cluster; 1 where there was none and the centroid is a new row
};
// vectors: [N, D]; start: [K, D]. Clusters that lose all their vectors start again at a random one.
Clusters kmeans(const Tensor& vectors, std::vector<double> start, int64_t iterations, Rng& rng);

}  // namespace addp
