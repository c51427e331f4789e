// Softmax and cross entropy on the CPU. Every exponential is taken relative to the row's largest entry.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {

using cpu::for_vectors;
using cpu::keep;
using cpu::load;
using cpu::store;
using cpu::sum_lanes;
using cpu::Vec;

namespace {

template <class T>
T row_max(const T* x, int64_t D) {
  Vec<T> best = cpu::splat<T>(x[0]);
  for_vectors<T>(D, [&](int64_t i, auto lanes) {
    const Vec<T> v = keep<T>(load<T>(x + i, lanes), lanes, x[0]);
    best = v > best ? v : best;
  });
  return cpu::max_lanes<T>(best);
}

template <class F>
void for_rows(int64_t N, int64_t D, F&& f) {
  parallel_ranges(N, cpu::row_grain(D), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r, r * D);
  });
}

}  // namespace

template <class T>
void softmax_fwd(Cpu, T* y, const T* x, int64_t N, int64_t D) {
  for_rows(N, D, [&](int64_t, int64_t at) {
    const T largest = row_max(x + at, D);
    Vec<T> total{};
    for_vectors<T>(D, [&](int64_t i, auto lanes) {
      const Vec<T> e = cpu::exp_negative(load<T>(x + at + i, lanes) - largest);
      cpu::ask_to_read(x + at + i, std::max(D, cpu::kAhead));
      cpu::ask_to_write(y + at + i, std::max(D, cpu::kAhead));
      store<T>(y + at + i, lanes, e);
      total += keep<T>(e, lanes);
    });
    const T scale = 1 / sum_lanes<T>(total);
    for (int64_t i = at; i < at + D; ++i) y[i] *= scale;
  });
}

// dx = y (dy - sum dy y)
template <class T>
void softmax_bwd(Cpu, T* dx, const T* dy, const T* y, int64_t N, int64_t D) {
  for_rows(N, D, [&](int64_t, int64_t at) {
    Vec<T> dot{};
    for_vectors<T>(D, [&](int64_t i, auto lanes) { dot += load<T>(dy + at + i, lanes) * load<T>(y + at + i, lanes); });
    const T total = sum_lanes<T>(dot);
    for (int64_t i = at; i < at + D; ++i) dx[i] = y[i] * (dy[i] - total);
  });
}

template <class T>
void log_softmax_fwd(Cpu, T* y, const T* x, int64_t N, int64_t D) {
  for_rows(N, D, [&](int64_t, int64_t at) {
    const T largest = row_max(x + at, D);
    Vec<T> total{};
    for_vectors<T>(D, [&](int64_t i, auto lanes) {
      total += keep<T>(cpu::exp_negative(load<T>(x + at + i, lanes) - largest), lanes);
    });
    const T log_total = std::log(sum_lanes<T>(total));
    for (int64_t i = at; i < at + D; ++i) y[i] = x[i] - largest - log_total;
  });
}

// dx = dy - softmax(x) sum dy
template <class T>
void log_softmax_bwd(Cpu, T* dx, const T* dy, const T* y, int64_t N, int64_t D) {
  for_rows(N, D, [&](int64_t, int64_t at) {
    Vec<T> sum{};
    for_vectors<T>(D, [&](int64_t i, auto lanes) { sum += load<T>(dy + at + i, lanes); });
    const T total = sum_lanes<T>(sum);
    for_vectors<T>(D, [&](int64_t i, auto lanes) {
      const Vec<T> p = cpu::exp_negative(load<T>(y + at + i, lanes));
      store<T>(dx + at + i, lanes, load<T>(dy + at + i, lanes) - p * total);
    });
  });
}

namespace {

// What the losses need of a row of logits: x' = x - max x, sums of exp(x') and x'. With d not null, d = exp(x').
template <class T>
struct RowStatistics {
  T largest;
  double exp_sum, sum;
};

template <class T>
RowStatistics<T> row_statistics(T* d, const T* x, int64_t V) {
  const T largest = row_max(x, V);
  Vec<T> exp_sum{}, sum{};
  for_vectors<T>(V, [&](int64_t i, auto lanes) {
    const Vec<T> shifted = load<T>(x + i, lanes) - largest, e = cpu::exp_negative(shifted);
    cpu::ask_to_read(x + i, std::max(V, cpu::kAhead));
    if (d) cpu::ask_to_write(d + i, std::max(V, cpu::kAhead));
    if (d) store<T>(d + i, lanes, e);
    exp_sum += keep<T>(e, lanes);
    sum += keep<T>(shifted, lanes);
  });
  return {largest, sum_lanes<T>(exp_sum), sum_lanes<T>(sum)};
}

// loss[0] = sum_r w_r CE_r / sum_r w_r; row(r, at, w_r / sum w) returns CE_r and writes the row's gradient. Rows of
// weight 0 are skipped.
template <class T, class Row>
void weighted_rows(T* loss, T* dlogits, const T* row_weight, int64_t N, int64_t V, Row&& row) {
  const double total = cpu::sum_double(row_weight, N);
  const double inverse = total != 0 ? 1 / total : 0;
  std::vector<double> losses(N, 0.0);
  for_rows(N, V, [&](int64_t r, int64_t at) {
    const double weight = row_weight[r] * inverse;
    if (weight != 0) {
      losses[r] = weight * row(r, at, weight);
    } else if (dlogits) {
      for (int64_t i = at; i < at + V; ++i) dlogits[i] = 0;
    }
  });
  loss[0] = static_cast<T>(cpu::sum_double(losses.data(), N));
}

}  // namespace

// CE = sum(q') log sum exp(x') - sum q' x', x' = x - max x; dCE/dx = sum(q') softmax(x) - q'.
template <class T>
void soft_cross_entropy(Cpu, T* loss, T* dlogits, const T* logits, const T* target, const T* row_weight, int64_t N,
                        int64_t V, int64_t K, double smoothing) {
  weighted_rows(loss, dlogits, row_weight, N, V, [&](int64_t r, int64_t at, double weight) {
    const T *x = logits + at, *q = target + r * K;
    T* d = dlogits ? dlogits + at : nullptr;
    const RowStatistics<T> s = row_statistics(d, x, V);
    Vec<T> q_lanes{}, qx_lanes{};
    for_vectors<T>(K, [&](int64_t i, auto lanes) {
      const Vec<T> v = load<T>(q + i, lanes);
      q_lanes += v;
      qx_lanes += v * (load<T>(x + i, lanes) - s.largest);
    });
    const double uniform = smoothing / double(V);
    const double q_sum = (1 - smoothing) * double(sum_lanes<T>(q_lanes)) + smoothing;
    const double qx_sum = (1 - smoothing) * double(sum_lanes<T>(qx_lanes)) + uniform * s.sum;
    if (d) {
      const T p_scale = static_cast<T>(weight * q_sum / s.exp_sum), q_scale = static_cast<T>(weight * (1 - smoothing));
      const T flat = static_cast<T>(weight * uniform);
      for (int64_t i = 0; i < K; ++i) d[i] = d[i] * p_scale - q[i] * q_scale - flat;
      for (int64_t i = K; i < V; ++i) d[i] = d[i] * p_scale - flat;
    }
    return q_sum * std::log(s.exp_sum) - qx_sum;
  });
}

template <class T>
void cross_entropy(Cpu, T* loss, T* dlogits, const T* logits, const int64_t* label, const T* row_weight, int64_t N,
                   int64_t V, double smoothing) {
  weighted_rows(loss, dlogits, row_weight, N, V, [&](int64_t r, int64_t at, double weight) {
    check(label[r] >= 0 && label[r] < V, "cross_entropy: label ", label[r], " is outside [0, ", V, ")");
    T* d = dlogits ? dlogits + at : nullptr;
    const RowStatistics<T> s = row_statistics(d, logits + at, V);
    const double uniform = smoothing / double(V);
    if (d) {
      const T p_scale = static_cast<T>(weight / s.exp_sum), flat = static_cast<T>(weight * uniform);
      for (int64_t i = 0; i < V; ++i) d[i] = d[i] * p_scale - flat;
      d[label[r]] -= static_cast<T>(weight * (1 - smoothing));
    }
    return std::log(s.exp_sum) - (1 - smoothing) * double(logits[at + label[r]] - s.largest) - uniform * s.sum;
  });
}

#define ADDP_INSTANTIATE(T)                                                                                       \
  template void softmax_fwd(Cpu, T*, const T*, int64_t, int64_t);                                                 \
  template void softmax_bwd(Cpu, T*, const T*, const T*, int64_t, int64_t);                                       \
  template void log_softmax_fwd(Cpu, T*, const T*, int64_t, int64_t);                                             \
  template void log_softmax_bwd(Cpu, T*, const T*, const T*, int64_t, int64_t);                                   \
  template void soft_cross_entropy(Cpu, T*, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, double); \
  template void cross_entropy(Cpu, T*, T*, const T*, const int64_t*, const T*, int64_t, int64_t, double);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
