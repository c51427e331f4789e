#include "nn/symmetric.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/parallel.h"

namespace addp {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

// Rows a task takes, so that it has some 32768 products to do.
int64_t row_grain(int64_t row_length) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, row_length)); }

double dot(const double* a, const double* b, int64_t n) {
  double sum[4] = {0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int64_t j = 0; j < 4; ++j) sum[j] += a[i + j] * b[i + j];
  for (; i < n; ++i) sum[0] += a[i] * b[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void check_square(const char* name, const Tensor& a) {
  check(a.rank() == 2 && a.dim(0) == a.dim(1) && a.dtype() == DType::f64 && a.device() == Device::cpu, name,
        ": a square f64 matrix on the CPU is expected, found ", a.shape());
}

// diagonal [n] and the n - 1 elements beside it.
struct Tridiagonal {
  std::vector<double> diagonal, beside;
};

// Step k reflects column k below the diagonal onto its first element: with v the reflection's vector, H = I - 2 v v^T /
// v^T v, the rest becomes H A H = A - v w^T - w v^T where p = 2 A v / v^T v and w = p - (p^T v / v^T v) v.
Tridiagonal tridiagonalize(std::vector<double> a, int64_t n) {
  Tridiagonal t{std::vector<double>(n), std::vector<double>(n, 0.0)};
  std::vector<double> v(n), w(n);
  for (int64_t k = 0; k + 1 < n; ++k) {
    const int64_t first = k + 1, m = n - first;
    for (int64_t i = 0; i < m; ++i) v[i] = a[(first + i) * n + k];
    t.diagonal[k] = a[k * n + k];
    const double norm = std::sqrt(dot(v.data(), v.data(), m));
    t.beside[k] = m == 1 || norm == 0 ? v[0] : -std::copysign(norm, v[0]);
    if (m == 1 || norm == 0) continue;
    v[0] -= t.beside[k];
    const double length = dot(v.data(), v.data(), m);
    parallel_ranges(m, row_grain(m), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) w[i] = 2 / length * dot(&a[(first + i) * n + first], v.data(), m);
    });
    const double along = dot(w.data(), v.data(), m) / length;
    for (int64_t i = 0; i < m; ++i) w[i] -= along * v[i];
    parallel_ranges(m, row_grain(m), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        double* row = &a[(first + i) * n + first];
        for (int64_t j = 0; j < m; ++j) row[j] -= v[i] * w[j] + w[i] * v[j];
      }
    });
  }
  t.diagonal[n - 1] = a[n * n - 1];
  return t;
}

// One implicit QL step on rows l..m, where the element beside m is negligible.
void ql_step(std::vector<double>& d, std::vector<double>& e, int64_t l, int64_t m) {
  double g = (d[l + 1] - d[l]) / (2 * e[l]), r = std::hypot(g, 1.0);
  g = d[m] - d[l] + e[l] / (g + std::copysign(r, g));  // d[m] - shift
  double s = 1, c = 1, p = 0;
  for (int64_t i = m - 1; i >= l; --i) {
    const double f = s * e[i], b = c * e[i];
    r = std::hypot(f, g);
    e[i + 1] = r;
    if (r == 0) {  // the matrix falls into two here
      d[i + 1] -= p;
      e[m] = 0;
      return;
    }
    s = f / r, c = g / r;
    g = d[i + 1] - p;
    r = (d[i] - g) * s + 2 * c * b;
    p = s * r;
    d[i + 1] = g + p;
    g = c * r - b;
  }
  d[l] -= p;
  e[l] = g;
  e[m] = 0;
}

}  // namespace

Tensor semidefinite_factor(const Tensor& a) {
  check_square("semidefinite_factor", a);
  const int64_t n = a.dim(0);
  const double* A = a.ptr<double>();
  std::vector<double> F(static_cast<size_t>(n * n), 0.0), left(n);  // left: diagonal of a - F F^T
  for (int64_t i = 0; i < n; ++i) left[i] = A[i * n + i];
  const double largest = n > 0 ? *std::max_element(left.begin(), left.end()) : 0;
  const double negligible = static_cast<double>(n) * kEpsilon * largest;
  int64_t rank = 0;
  for (; rank < n; ++rank) {
    const int64_t pivot = std::max_element(left.begin(), left.end()) - left.begin();
    if (left[pivot] <= negligible) break;
    const double root = std::sqrt(left[pivot]);
    const double* pivot_row = &F[pivot * n];
    parallel_ranges(n, row_grain(rank), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (i == pivot || left[i] <= 0) continue;  // rows that were pivots have nothing left
        const double value = (A[i * n + pivot] - dot(&F[i * n], pivot_row, rank)) / root;
        F[i * n + rank] = value;
        left[i] -= value * value;
      }
    });
    F[pivot * n + rank] = root;
    left[pivot] = 0;
  }
  Tensor factor = empty({n, rank}, a);
  for (int64_t i = 0; i < n; ++i) std::copy_n(&F[i * n], rank, factor.ptr<double>() + i * rank);
  return factor;
}

std::vector<double> symmetric_eigenvalues(const Tensor& a) {
  check_square("symmetric_eigenvalues", a);
  const int64_t n = a.dim(0);
  if (n == 0) return {};
  auto [d, e] = tridiagonalize(to_vector<double>(a), n);
  double norm = 0;
  for (int64_t i = 0; i < n; ++i) norm = std::max(norm, std::abs(d[i]) + std::abs(e[i]));
  check_as(ErrorKind::non_finite, std::isfinite(norm), "symmetric_eigenvalues: the matrix is not finite");
  constexpr int kMostSteps = 60;  // two or three are usual
  for (int64_t l = 0; l < n; ++l) {
    for (int step = 0;; ++step) {
      int64_t m = l;
      while (m + 1 < n && std::abs(e[m]) > kEpsilon * norm) ++m;
      if (m == l) break;
      check(step < kMostSteps, "symmetric_eigenvalues: no convergence at eigenvalue ", l, " of ", n);
      ql_step(d, e, l, m);
    }
  }
  std::sort(d.begin(), d.end());
  return d;
}

}  // namespace addp
