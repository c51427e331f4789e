// Softmax and cross entropy on the device. Every exponential is taken relative to the row's largest entry. A row is
// worked on by a warp, or by a block when it is long; it comes from memory once, and from the cache when it is read
// again.
#include "cuda/reduce.cuh"

namespace addp::kernel {
namespace {

// Loops of a team over the row's elements.
template <class Members, class T, class F>
__device__ void for_row(int64_t D, bool packed, F&& f) {
  for_packs<T>(D, packed, Members::rank(), Members::kSize, f);
}

template <class Members, class T>
__device__ T row_max(const T* x, int64_t D, bool packed) {
  T largest = x[0];
  for_row<Members, T>(D, packed, [&]<int W>(int64_t i, Width<W> width) {
    const Pack<T, W> v = load(x + i, width);
    for (int k = 0; k < W; ++k) largest = v[k] > largest ? v[k] : largest;
  });
  return Members::max(largest);
}

// What the losses need of a row of logits: its maximum, and over x' = x - maximum the sums of exp(x') and x'.
template <class T>
struct RowStatistics {
  T largest, exp_sum, sum;
};

template <class Members, class T>
__device__ RowStatistics<T> row_statistics(const T* x, int64_t D, bool packed) {
  RowStatistics<T> s{row_max<Members>(x, D, packed), 0, 0};
  for_row<Members, T>(D, packed, [&]<int W>(int64_t i, Width<W> width) {
    const Pack<T, W> v = load(x + i, width);
    for (int k = 0; k < W; ++k) {
      s.exp_sum += exp(v[k] - s.largest);
      s.sum += v[k] - s.largest;
    }
  });
  s.exp_sum = Members::sum(s.exp_sum);
  s.sum = Members::sum(s.sum);
  return s;
}

// ---- Softmax

template <bool logarithm, class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize, kResident) void softmax_fwd_kernel(T* y, const T* x, int64_t N,
                                                                                     int64_t D, bool packed) {
  ADDP_MAX_THREADS(Members::kBlockSize);
  for (int64_t r = Members::first(); r < N; r += Members::step()) {
    const T* from = x + r * D;
    const RowStatistics<T> s = row_statistics<Members>(from, D, packed);
    const T scale = 1 / s.exp_sum, log_sum = log(s.exp_sum);
    for_row<Members, T>(D, packed, [&]<int W>(int64_t i, Width<W> width) {
      Pack<T, W> v = load(from + i, width);
      for (int k = 0; k < W; ++k) v[k] = logarithm ? v[k] - s.largest - log_sum : exp(v[k] - s.largest) * scale;
      store(y + r * D + i, v);
    });
  }
}

// Of softmax: dx = y (dy - sum dy y). Of its logarithm: dx = dy - exp(y) sum dy.
template <bool logarithm, class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize, kResident) void softmax_bwd_kernel(T* dx, const T* dy, const T* y,
                                                                                     int64_t N, int64_t D,
                                                                                     bool packed) {
  ADDP_MAX_THREADS(Members::kBlockSize);
  for (int64_t r = Members::first(); r < N; r += Members::step()) {
    T total = 0;
    for_row<Members, T>(D, packed, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<T, W> g = load(dy + r * D + i, width);
      Pack<T, W> p{};
      if (!logarithm) p = load(y + r * D + i, width);
      for (int k = 0; k < W; ++k) total += logarithm ? g[k] : g[k] * p[k];
    });
    total = Members::sum(total);
    for_row<Members, T>(D, packed, [&]<int W>(int64_t i, Width<W> width) {
      Pack<T, W> g = load(dy + r * D + i, width);
      const Pack<T, W> p = load(y + r * D + i, width);
      for (int k = 0; k < W; ++k) g[k] = logarithm ? g[k] - exp(p[k]) * total : p[k] * (g[k] - total);
      store(dx + r * D + i, g);
    });
  }
}

template <bool logarithm, class T>
void any_softmax_fwd(Cuda dev, T* y, const T* x, int64_t N, int64_t D) {
  if (N * D == 0) return;
  const bool packed = D % kPack<T> == 0 && aligned(y, x);
  with_team(D, [&](auto team) {
    using Members = decltype(team);
    launch(softmax_fwd_kernel<logarithm, Members, T>, Members::dims(dev, N), y, x, N, D, packed);
  });
}

template <bool logarithm, class T>
void any_softmax_bwd(Cuda dev, T* dx, const T* dy, const T* y, int64_t N, int64_t D) {
  if (N * D == 0) return;
  const bool packed = D % kPack<T> == 0 && aligned(dx, dy, y);
  with_team(D, [&](auto team) {
    using Members = decltype(team);
    launch(softmax_bwd_kernel<logarithm, Members, T>, Members::dims(dev, N), dx, dy, y, N, D, packed);
  });
}

// ---- Cross entropy

// A row's weight w_r / sum w; rows of weight 0 have neither loss nor gradient.
template <class T>
__device__ double share(const T* row_weight, const double* total, int64_t r) {
  return *total != 0 ? static_cast<double>(row_weight[r]) * (1 / *total) : 0.0;
}

template <class Members, class T>
__device__ void zero_row(T* d, int64_t V, bool packed) {
  if (!d) return;
  for_row<Members, T>(V, packed, [&]<int W>(int64_t i, Width<W>) { store(d + i, Pack<T, W>{}); });
}

// losses[r] = weight CE_r; see tensor/kernels.h. target's rows are K long, so packs need K to be a multiple of them.
template <class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize,
                             kResident) void soft_cross_entropy_kernel(double* losses, T* dlogits, const T* logits,
                                                                       const T* target, const T* row_weight,
                                                                       const double* total, int64_t N, int64_t V,
                                                                       int64_t K, double smoothing, bool packed) {
  ADDP_MAX_THREADS(Members::kBlockSize);
  for (int64_t r = Members::first(); r < N; r += Members::step()) {
    const double weight = share(row_weight, total, r);
    T* d = dlogits ? dlogits + r * V : nullptr;
    if (weight == 0) {
      zero_row<Members>(d, V, packed);
      if (Members::rank() == 0) losses[r] = 0;
      continue;
    }
    const T *x = logits + r * V, *q = target + r * K;
    const RowStatistics<T> s = row_statistics<Members>(x, V, packed);
    T q_total = 0, qx_total = 0;
    for_row<Members, T>(K, packed, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<T, W> p = load(q + i, width), v = load(x + i, width);
      for (int k = 0; k < W; ++k) {
        q_total += p[k];
        qx_total += p[k] * (v[k] - s.largest);
      }
    });
    const double uniform = smoothing / static_cast<double>(V);
    const double q_sum = (1 - smoothing) * static_cast<double>(Members::sum(q_total)) + smoothing;
    const double qx_sum = (1 - smoothing) * static_cast<double>(Members::sum(qx_total)) + uniform * s.sum;
    if (d) {
      const T p_scale = static_cast<T>(weight * q_sum / s.exp_sum), q_scale = static_cast<T>(weight * (1 - smoothing));
      const T flat = static_cast<T>(weight * uniform);
      for_row<Members, T>(V, packed, [&]<int W>(int64_t i, Width<W> width) {
        Pack<T, W> v = load(x + i, width), p{};
        if (i < K) p = load(q + i, width);
        for (int k = 0; k < W; ++k) v[k] = exp(v[k] - s.largest) * p_scale - p[k] * q_scale - flat;
        store(d + i, v);
      });
    }
    if (Members::rank() == 0) losses[r] = weight * (q_sum * log(static_cast<double>(s.exp_sum)) - qx_sum);
  }
}

template <class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize,
                             kResident) void cross_entropy_kernel(double* losses, T* dlogits, const T* logits,
                                                                  const int64_t* label, const T* row_weight,
                                                                  const double* total, int64_t N, int64_t V,
                                                                  double smoothing, bool packed, int* fault) {
  ADDP_MAX_THREADS(Members::kBlockSize);
  for (int64_t r = Members::first(); r < N; r += Members::step()) {
    const double weight = share(row_weight, total, r);
    const int64_t chosen = label[r];
    const bool inside = chosen >= 0 && chosen < V;
    T* d = dlogits ? dlogits + r * V : nullptr;
    if (weight == 0 || !inside) {
      zero_row<Members>(d, V, packed);
      if (Members::rank() == 0) losses[r] = 0;
      if (Members::rank() == 0 && weight != 0) atomicMax(fault, 1);
      continue;
    }
    const T* x = logits + r * V;
    const RowStatistics<T> s = row_statistics<Members>(x, V, packed);
    const double uniform = smoothing / static_cast<double>(V);
    if (d) {
      const T p_scale = static_cast<T>(weight / s.exp_sum), flat = static_cast<T>(weight * uniform);
      const T q_scale = static_cast<T>(weight * (1 - smoothing));
      for_row<Members, T>(V, packed, [&]<int W>(int64_t i, Width<W> width) {
        Pack<T, W> v = load(x + i, width);
        for (int k = 0; k < W; ++k) {
          v[k] = exp(v[k] - s.largest) * p_scale - flat - (i + k == chosen ? q_scale : T(0));
        }
        store(d + i, v);
      });
    }
    if (Members::rank() == 0) {
      losses[r] = weight * (log(static_cast<double>(s.exp_sum)) -
                            (1 - smoothing) * static_cast<double>(x[chosen] - s.largest) - uniform * s.sum);
    }
  }
}

// loss[0] = sum of what run(losses, total) writes to losses[r < N]; total points to the sum of the weights.
template <class T, class Run>
void weighted_rows(Cuda dev, T* loss, const T* row_weight, int64_t N, Run&& run) {
  const Scratch scratch(dev, (N + 1) * static_cast<int64_t>(sizeof(double)));
  double *total = scratch.as<double>(), *losses = total + 1;
  sum_all(dev, total, row_weight, N);
  if (N > 0) run(losses, total);
  sum_all(dev, loss, losses, N);
}

}  // namespace

template <class T>
void softmax_fwd(Cuda dev, T* y, const T* x, int64_t N, int64_t D) {
  any_softmax_fwd<false>(dev, y, x, N, D);
}
template <class T>
void softmax_bwd(Cuda dev, T* dx, const T* dy, const T* y, int64_t N, int64_t D) {
  any_softmax_bwd<false>(dev, dx, dy, y, N, D);
}
template <class T>
void log_softmax_fwd(Cuda dev, T* y, const T* x, int64_t N, int64_t D) {
  any_softmax_fwd<true>(dev, y, x, N, D);
}
template <class T>
void log_softmax_bwd(Cuda dev, T* dx, const T* dy, const T* y, int64_t N, int64_t D) {
  any_softmax_bwd<true>(dev, dx, dy, y, N, D);
}

template <class T>
void soft_cross_entropy(Cuda dev, T* loss, T* dlogits, const T* logits, const T* target, const T* row_weight, int64_t N,
                        int64_t V, int64_t K, double smoothing) {
  const bool packed = V % kPack<T> == 0 && K % kPack<T> == 0 && aligned(dlogits, logits, target);
  weighted_rows(dev, loss, row_weight, N, [&](double* losses, const double* total) {
    with_team(V, [&](auto team) {
      using Members = decltype(team);
      launch(soft_cross_entropy_kernel<Members, T>, Members::dims(dev, N), losses, dlogits, logits, target, row_weight,
             total, N, V, K, smoothing, packed);
    });
  });
}

template <class T>
void cross_entropy(Cuda dev, T* loss, T* dlogits, const T* logits, const int64_t* label, const T* row_weight, int64_t N,
                   int64_t V, double smoothing) {
  const bool packed = V % kPack<T> == 0 && aligned(dlogits, logits);
  weighted_rows(dev, loss, row_weight, N, [&](double* losses, const double* total) {
    with_team(V, [&](auto team) {
      using Members = decltype(team);
      launch(cross_entropy_kernel<Members, T>, Members::dims(dev, N), losses, dlogits, logits, label, row_weight, total,
             N, V, smoothing, packed, index_fault(dev));
    });
  });
}

#define ADDP_INSTANTIATE(T)                                                                                        \
  template void softmax_fwd(Cuda, T*, const T*, int64_t, int64_t);                                                 \
  template void softmax_bwd(Cuda, T*, const T*, const T*, int64_t, int64_t);                                       \
  template void log_softmax_fwd(Cuda, T*, const T*, int64_t, int64_t);                                             \
  template void log_softmax_bwd(Cuda, T*, const T*, const T*, int64_t, int64_t);                                   \
  template void soft_cross_entropy(Cuda, T*, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, double); \
  template void cross_entropy(Cuda, T*, T*, const T*, const int64_t*, const T*, int64_t, int64_t, double);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
