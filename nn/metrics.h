// How good a set of generated images is, from the features of a network: Frechet distance (FID), kernel distance (KID),
// Inception score, precision and recall. All in float64 on the CPU, whatever the features are; the conventions are
// those of torch-fidelity. A figure depends on the network and on N: compare only like with like.
#pragma once
#include <cstdint>

#include "tensor/random.h"
#include "tensor/tensor.h"

namespace addp {

// Mean and spread over subsets or splits (standard deviation, divided by their number).
struct MeanSpread {
  double mean = 0, deviation = 0;
};

// The normal distribution of the same first two moments as features [N, D], N at least 2.
struct FeatureMoments {
  explicit FeatureMoments(const Tensor& features);
  Tensor mean, covariance;  // [D], [D, D] f64; unbiased (N - 1)
};

// |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017). With few images it is too large: by about as much
// as that of two halves of real data is above 0.
double frechet_distance(const FeatureMoments& a, const FeatureMoments& b);

// Unbiased estimate of MMD^2 with the kernel (x . y / D + 1)^3 (Binkowski et al. 2018). x, y: [N, D], N at least 2,
// each. May be slightly negative.
double polynomial_mmd2(const Tensor& x, const Tensor& y);

// KID: mean of polynomial_mmd2 over random subsets, drawn without replacement.
struct KidOptions {
  int64_t subsets = 100, subset_size = 1000;
};
MeanSpread kernel_distance(const Tensor& a, const Tensor& b, const KidOptions& options, Rng rng);

// exp(mean KL(p(y|x) | p(y))) of classes (Salimans et al. 2016) over `splits` consecutive parts. logits: [N, V], N at
// least `splits`.
MeanSpread inception_score(const Tensor& logits, int64_t splits);

// The rows of x [N, ...] in a random order.
Tensor shuffled_rows(const Tensor& x, Rng& rng);

// Improved precision and recall (Kynkaanniemi et al. 2019): the share of one set that lies within the k-th neighbour's
// distance of a member of the other. Features [N, D], N above k.
struct PrecisionRecall {
  double precision = 0, recall = 0;  // in [0, 1]
};
PrecisionRecall precision_recall(const Tensor& generated, const Tensor& real, int64_t k = 3);

}  // namespace addp
