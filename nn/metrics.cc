#include "nn/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "nn/symmetric.h"
#include "tensor/parallel.h"

namespace addp {
namespace {

constexpr Options kHostDouble{DType::f64, Device::cpu};

// Features as this file computes with them.
Tensor as_rows(const char* name, const Tensor& x, int64_t least) {
  check_as(ErrorKind::usage, x.rank() == 2 && x.dim(1) > 0, name, ": features must be [N, D], found ", x.shape());
  check_as(ErrorKind::usage, x.dim(0) >= least, name, ": needs at least ", least, " images, found ", x.dim(0));
  check_as(ErrorKind::non_finite, all_finite(x), name, ": features are not finite");
  return to(x, kHostDouble);
}

void check_same_width(const char* name, const Tensor& a, const Tensor& b) {
  check_as(ErrorKind::usage, a.dim(1) == b.dim(1), name, ": features of one network are expected, found widths ",
           a.dim(1), " and ", b.dim(1));
}

Tensor product(const Tensor& a, const Tensor& b, bool trans_a, bool trans_b) {
  const NoGrad no_grad;
  return matmul(Var(a), Var(b), trans_a, trans_b).value();
}

double trace(const Tensor& a) {
  double sum = 0;
  for (int64_t i = 0; i < a.dim(0); ++i) sum += a.ptr<double>()[i * a.dim(0) + i];
  return sum;
}

MeanSpread mean_spread(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (double v : values) mean += v / n;
  for (double v : values) squares += (v - mean) * (v - mean) / n;
  return {mean, std::sqrt(squares)};
}

// Sum of the kernel over all pairs of rows, or all but i = j.
double kernel_sum(const Tensor& x, const Tensor& y, bool with_diagonal) {
  const Tensor inner = product(x, y, false, true);
  const int64_t N = x.dim(0), M = y.dim(0);
  const double scale = 1 / static_cast<double>(x.dim(1));
  std::vector<double> rows(static_cast<size_t>(N));
  parallel_ranges(N, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double* row = inner.ptr<double>() + i * M;
      double sum = 0;
      for (int64_t j = 0; j < M; ++j) {
        const double k = row[j] * scale + 1;
        if (with_diagonal || j != i) sum += k * k * k;
      }
      rows[i] = sum;
    }
  });
  double sum = 0;
  for (double row : rows) sum += row;
  return sum;
}

double mmd2(const Tensor& x, const Tensor& y) {
  const auto n = static_cast<double>(x.dim(0)), m = static_cast<double>(y.dim(0));
  return kernel_sum(x, x, false) / (n * (n - 1)) + kernel_sum(y, y, false) / (m * (m - 1)) -
         2 * kernel_sum(x, y, true) / (n * m);
}

Tensor rows_at(const Tensor& x, const std::vector<int64_t>& index) {
  const NoGrad no_grad;
  return gather_rows(Var(x), to(from_vector(index, {static_cast<int64_t>(index.size())}), {DType::i64, x.device()}))
      .value();
}

std::vector<double> squared_norms(const Tensor& x) {
  const NoGrad no_grad;
  return to_vector<double>(sum_axis(square(Var(x)), 1).value());
}

// f(i, d) for each row i of x, in any order: d[j] is its squared distance to row j of y and may be overwritten.
template <class F>
void for_each_distances(const Tensor& x, const Tensor& y, F&& f) {
  constexpr int64_t kRows = 512;  // of x at a time: the distances of all would not fit into memory
  const std::vector<double> x_norm = squared_norms(x), y_norm = squared_norms(y);
  const int64_t N = x.dim(0), M = y.dim(0), D = x.dim(1);
  for (int64_t begin = 0; begin < N; begin += kRows) {
    const int64_t rows = std::min(kRows, N - begin);
    const Tensor inner = product(x.view(begin * D, {rows, D}), y, false, true);
    parallel_ranges(rows, 8, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        double* row = inner.ptr<double>() + i * M;
        for (int64_t j = 0; j < M; ++j) row[j] = std::max(0.0, x_norm[begin + i] + y_norm[j] - 2 * row[j]);
        f(begin + i, row);
      }
    });
  }
}

// Squared distance of each row to its k-th neighbour among the others.
std::vector<double> radii(const Tensor& x, int64_t k) {
  std::vector<double> found(static_cast<size_t>(x.dim(0)));
  for_each_distances(x, x, [&](int64_t i, double* d) {
    d[i] = -1;  // itself comes first
    std::nth_element(d, d + k, d + x.dim(0));
    found[i] = d[k];
  });
  return found;
}

// Share of the rows of x that lie within the radius of a row of y.
double covered(const Tensor& x, const Tensor& y, const std::vector<double>& radius) {
  std::vector<int64_t> inside(static_cast<size_t>(x.dim(0)));
  for_each_distances(x, y, [&](int64_t i, const double* d) {
    for (size_t j = 0; j < radius.size() && !inside[i]; ++j) inside[i] = d[j] <= radius[j];
  });
  return static_cast<double>(std::count(inside.begin(), inside.end(), 1)) / static_cast<double>(x.dim(0));
}

// exp of the mean divergence of rows begin..end-1 of log p [N, V] from their mean p.
double score_of_split(const double* log_p, int64_t begin, int64_t end, int64_t V) {
  const auto n = static_cast<double>(end - begin);
  std::vector<double> mean(static_cast<size_t>(V), 0.0);
  for (int64_t i = begin; i < end; ++i)
    for (int64_t v = 0; v < V; ++v) mean[v] += std::exp(log_p[i * V + v]) / n;
  double divergence = 0;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t v = 0; v < V; ++v) {
      const double p = std::exp(log_p[i * V + v]);
      if (p > 0) divergence += p * (log_p[i * V + v] - std::log(mean[v])) / n;
    }
  }
  return std::exp(divergence);
}

}  // namespace

FeatureMoments::FeatureMoments(const Tensor& features) {
  const NoGrad no_grad;
  const Var x(as_rows("FID", features, 2));
  const Var average = mean_axis(x, 0);
  const Var centred = x - average;
  mean = average.value();
  const double scale = 1 / static_cast<double>(x.dim(0) - 1);
  covariance = affine(matmul(centred, centred, true, false), scale, 0).value();
}

// (C1 C2)^(1/2) has the square roots of the eigenvalues of C1 C2. With any factor C1 = F F^T these are, but for zeros,
// those of F^T C2 F, which is symmetric and has only as many rows as C1 has rank.
double frechet_distance(const FeatureMoments& a, const FeatureMoments& b) {
  check_same_width("FID", a.covariance, b.covariance);
  const NoGrad no_grad;
  const double between = sum(square(Var(a.mean) - Var(b.mean))).item();
  const Tensor factor = semidefinite_factor(a.covariance);
  double root_trace = 0;
  if (factor.dim(1) > 0) {
    const Tensor inner = product(factor, product(b.covariance, factor, false, false), true, false);
    for (double eigenvalue : symmetric_eigenvalues(inner)) root_trace += std::sqrt(std::max(0.0, eigenvalue));
  }
  return between + trace(a.covariance) + trace(b.covariance) - 2 * root_trace;
}

double polynomial_mmd2(const Tensor& x, const Tensor& y) {
  const Tensor a = as_rows("KID", x, 2), b = as_rows("KID", y, 2);
  check_same_width("KID", a, b);
  return mmd2(a, b);
}

MeanSpread kernel_distance(const Tensor& a, const Tensor& b, const KidOptions& options, Rng rng) {
  check_as(ErrorKind::usage, options.subsets > 0 && options.subset_size > 1,
           "KID: subsets must be positive and of at least 2 images, found ", options.subsets, " of ",
           options.subset_size);
  const Tensor x = as_rows("KID", a, options.subset_size), y = as_rows("KID", b, options.subset_size);
  check_same_width("KID", x, y);
  const auto subset = [&](const Tensor& all) {
    std::vector<int64_t> index = permutation(all.dim(0), rng);
    index.resize(static_cast<size_t>(options.subset_size));
    return rows_at(all, index);
  };
  std::vector<double> values;
  for (int64_t i = 0; i < options.subsets; ++i) {
    const Tensor of_x = subset(x), of_y = subset(y);
    values.push_back(mmd2(of_x, of_y));
  }
  return mean_spread(values);
}

MeanSpread inception_score(const Tensor& logits, int64_t splits) {
  check_as(ErrorKind::usage, splits > 0, "Inception score: splits must be positive, found ", splits);
  const NoGrad no_grad;
  const Tensor log_p = log_softmax(Var(as_rows("Inception score", logits, splits))).value();
  const int64_t N = log_p.dim(0), V = log_p.dim(1);
  std::vector<double> scores;
  for (int64_t i = 0; i < splits; ++i)
    scores.push_back(score_of_split(log_p.ptr<double>(), i * N / splits, (i + 1) * N / splits, V));
  return mean_spread(scores);
}

Tensor shuffled_rows(const Tensor& x, Rng& rng) {
  const Tensor rows = rows_at(x.reshape({x.dim(0), -1}), permutation(x.dim(0), rng));
  return rows.reshape(x.shape());
}

PrecisionRecall precision_recall(const Tensor& generated, const Tensor& real, int64_t k) {
  check_as(ErrorKind::usage, k > 0, "precision and recall: k must be positive, found ", k);
  const Tensor g = as_rows("precision and recall", generated, k + 1), r = as_rows("precision and recall", real, k + 1);
  check_same_width("precision and recall", g, r);
  return {covered(g, r, radii(r, k)), covered(r, g, radii(g, k))};
}

}  // namespace addp
