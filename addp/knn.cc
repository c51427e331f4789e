// Similarities come as matrix products of some queries with all features; the nearest are then picked row by row.
#include "addp/knn.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/codes.h"
#include "autograd/ops.h"
#include "tensor/parallel.h"

namespace addp {
namespace {

constexpr int64_t kRows = 64;  // queries at a time: their similarities to 60,000 features are 15 MB

void vote(const double* cosine, const std::vector<int64_t>& labels, const KnnConfig& config, double* shares,
          int64_t classes) {
  std::vector<int64_t> order(labels.size());
  std::iota(order.begin(), order.end(), 0);
  const auto nearer = [&](int64_t a, int64_t b) { return cosine[a] > cosine[b] || (cosine[a] == cosine[b] && a < b); };
  std::nth_element(order.begin(), order.begin() + config.k - 1, order.end(), nearer);
  std::sort(order.begin(), order.begin() + config.k, nearer);  // sums in one order
  double total = 0;
  for (int64_t i = 0; i < config.k; ++i) {
    // Relative to the nearest, so that nothing overflows.
    const double weight =
        config.temperature > 0 ? std::exp((cosine[order[i]] - cosine[order[0]]) / config.temperature) : 1;
    shares[labels[order[i]]] += weight;
    total += weight;
  }
  for (int64_t c = 0; c < classes; ++c) shares[c] /= total;
}

}  // namespace

Tensor knn_votes(const Tensor& features, const Tensor& labels, const Tensor& queries, int64_t classes,
                 const KnnConfig& config) {
  const NoGrad no_grad;
  const int64_t N = features.dim(0), M = queries.dim(0), D = features.dim(1);
  check(queries.rank() == 2 && queries.dim(1) == D && labels.shape() == Shape{N},
        "knn: features [N, D], labels [N] and ", "queries [M, D] are expected, found ", features.shape(), ", ",
        labels.shape(), ", ", queries.shape());
  check_as(ErrorKind::usage, config.k > 0 && config.k <= N, "knn: ", config.k, " neighbours are asked for among ", N);
  const std::vector<int64_t> label = to_vector<int64_t>(labels);
  for (int64_t l : label) check(l >= 0 && l < classes, "knn: label ", l, " is not among ", classes, " classes");
  const Var unit = unit_norm(Var(features), 1, 1e-12), unit_queries = unit_norm(Var(queries), 1, 1e-12);
  const Tensor shares = zeros({M, classes}, {DType::f64, Device::cpu});
  for (int64_t begin = 0; begin < M; begin += kRows) {
    const int64_t rows = std::min(kRows, M - begin);
    const Tensor product = matmul(slice(unit_queries, 0, begin, begin + rows), unit, false, true).value();
    const Tensor cosine = to(product, {DType::f64, Device::cpu});
    parallel_for(rows, [&](int64_t r) {
      vote(cosine.ptr<double>() + r * N, label, config, shares.ptr<double>() + (begin + r) * classes, classes);
    });
  }
  return shares;
}

double knn_accuracy(const Tensor& features, const Tensor& labels, const Tensor& queries, const Tensor& query_labels,
                    int64_t classes, const KnnConfig& config) {
  const Tensor votes = knn_votes(features, labels, queries, classes, config);
  const std::vector<int64_t> found = to_vector<int64_t>(argmax(votes)), right = to_vector<int64_t>(query_labels);
  int64_t hits = 0;
  for (size_t i = 0; i < right.size(); ++i) hits += found[i] == right[i];
  return static_cast<double>(hits) / static_cast<double>(right.size());
}

}  // namespace addp
