// k nearest neighbours on frozen features, by cosine similarity: recognition without any training.
#pragma once
#include "tensor/tensor.h"

namespace addp {

struct KnnConfig {
  int64_t k = 20;
  double temperature = 0.07;  // a neighbour's vote weighs exp(cosine / temperature) (DINO, Caron et al. 2021); 0: one
};

// Each class's share of the votes. features: [N, D], labels: [N] i64 in [0, classes), queries: [M, D] of the same dtype
// -> [M, classes] f64 on the CPU, rows sum to 1. Of equally near neighbours the earlier ones count.
Tensor knn_votes(const Tensor& features, const Tensor& labels, const Tensor& queries, int64_t classes,
                 const KnnConfig& config);

// Share of queries whose most voted class (of equals the first) is their label, in [0, 1].
double knn_accuracy(const Tensor& features, const Tensor& labels, const Tensor& queries, const Tensor& query_labels,
                    int64_t classes, const KnnConfig& config);

}  // namespace addp
