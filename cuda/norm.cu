// Layer norm and unit norm on the device; group and batch norm are in norm_channels.cu.
// With x^ = (x - mean) rstd over a row of n elements and g = dL/dx^ the gradient is
//   dx = rstd (g - mean(g) - x^ mean(g x^)),
// because mean and rstd depend on x: dmean/dx = 1 / n, drstd/dx = -rstd^2 x^ / n.
#include "cuda/reduce.cuh"

namespace addp::kernel {
namespace {

template <class Members, class T, class F>
__device__ void for_row(int64_t D, bool packed, F&& f) {
  for_packs<T>(D, packed, Members::rank(), Members::kSize, f);
}

// Two sums that belong together: of g and g x^.
template <class T>
struct Sums {
  T first, second;
};

// ---- Layer norm: a team a row

template <class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize,
                             kResident) void layer_norm_fwd_kernel(T* y, T* mean, T* rstd, const T* x, const T* weight,
                                                                   const T* bias, int64_t N, int64_t D, double eps,
                                                                   bool packed) {
  ADDP_MAX_THREADS(Members::kBlockSize);
  for (int64_t r = Members::first(); r < N; r += Members::step()) {
    const T* from = x + r * D;
    T sum = 0, squares = 0;
    for_row<Members, T>(D, packed, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<T, W> v = load(from + i, width);
      for (int k = 0; k < W; ++k) sum += v[k];
    });
    const T m = Members::sum(sum) / static_cast<T>(D);
    for_row<Members, T>(D, packed, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<T, W> v = load(from + i, width);
      for (int k = 0; k < W; ++k) squares += (v[k] - m) * (v[k] - m);
    });
    const double variance = static_cast<double>(Members::sum(squares)) / static_cast<double>(D);
    const T rs = static_cast<T>(1 / sqrt(variance + eps));
    for_row<Members, T>(D, packed, [&]<int W>(int64_t i, Width<W> width) {
      Pack<T, W> v = load(from + i, width);
      const Pack<T, W> w = load(weight + i, width), b = load(bias + i, width);
      for (int k = 0; k < W; ++k) v[k] = (v[k] - m) * rs * w[k] + b[k];
      store(y + r * D + i, v);
    });
    if (Members::rank() == 0) {
      mean[r] = m;
      rstd[r] = rs;
    }
  }
}

template <class T>
struct RowScalars {
  T mean, rstd, g_mean, gx_mean;
};

constexpr int kNormRows = 16;  // rows of a block in layer_norm_bwd_kernel

// dx, and each block's share of dweight = sum over rows of dy x^ and dbias = sum of dy: partial is [2, blocks, D].
// First the block's warps find mean(g) and mean(g x^) of its rows, g = dy weight; then each thread goes down its
// columns.
template <class T>
__global__ __launch_bounds__(kBlock, kResident) void layer_norm_bwd_kernel(T* dx, T* partial, const T* dy, const T* x,
                                                                           const T* weight, const T* mean,
                                                                           const T* rstd, int64_t N, int64_t D,
                                                                           int64_t blocks, bool packed) {
  ADDP_MAX_THREADS(kBlock);
  using Members = Team<kWarp>;
  ADDP_SHARED(RowScalars<T>, scalars, [kNormRows]);
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t first = block * kNormRows;
    const int rows = static_cast<int>(N - first < kNormRows ? N - first : kNormRows);
    for (int j = static_cast<int>(threadIdx.x) / kWarp; j < rows; j += Members::kPerBlock) {
      const int64_t at = (first + j) * D;
      const T m = mean[first + j], rs = rstd[first + j];
      Sums<T> s{};
      for_row<Members, T>(D, packed, [&]<int W>(int64_t i, Width<W> width) {
        const Pack<T, W> d = load(dy + at + i, width), v = load(x + at + i, width), w = load(weight + i, width);
        for (int k = 0; k < W; ++k) {
          const T g = d[k] * w[k];
          s.first += g;
          s.second += g * ((v[k] - m) * rs);
        }
      });
      s = {warp_sum(s.first) / static_cast<T>(D), warp_sum(s.second) / static_cast<T>(D)};
      if (Members::rank() == 0) scalars[j] = {m, rs, s.first, s.second};
    }
    __syncthreads();
    for_packs<T>(D, packed, threadIdx.x, kBlock, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<T, W> w = load(weight + i, width);
      Pack<T, W> dw{}, db{};
      for (int j = 0; j < rows; ++j) {
        const int64_t at = (first + j) * D + i;
        const Pack<T, W> v = load(x + at, width);
        Pack<T, W> d = load(dy + at, width);
        const RowScalars<T> row = scalars[j];
        for (int k = 0; k < W; ++k) {
          const T normal = (v[k] - row.mean) * row.rstd;
          dw[k] += d[k] * normal;
          db[k] += d[k];
          d[k] = row.rstd * (d[k] * w[k] - row.g_mean - normal * row.gx_mean);
        }
        store(dx + at, d);
      }
      store(partial + block * D + i, dw);
      store(partial + (blocks + block) * D + i, db);
    });
    __syncthreads();
  }
}

// ---- Unit norm: y = x / (r + eps), r the norm of x over the middle axis. A warp a row where rows are contiguous, else
// a thread, beside its neighbours in `inner`.

template <class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize, kResident) void unit_norm_fwd_kernel(T* y, T* norm, const T* x,
                                                                                       int64_t outer, int64_t n,
                                                                                       int64_t inner, double eps) {
  ADDP_MAX_THREADS(Members::kBlockSize);
  for (int64_t row = Members::first(); row < outer * inner; row += Members::step()) {
    const int64_t at = row / inner * n * inner + row % inner;
    double squares = 0;
    for (int64_t k = Members::rank(); k < n; k += Members::kSize) {
      const double v = x[at + k * inner];
      squares += v * v;
    }
    const double r = sqrt(Members::sum(squares));
    const T scale = static_cast<T>(1 / (r + eps));
    for (int64_t k = Members::rank(); k < n; k += Members::kSize) y[at + k * inner] = x[at + k * inner] * scale;
    if (Members::rank() == 0) norm[row] = static_cast<T>(r);
  }
}

// dr/dx = x / r, so dx = dy / (r + eps) - x (sum dy x) / (r (r + eps)^2).
template <class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize,
                             kResident) void unit_norm_bwd_kernel(T* dx, const T* dy, const T* x, const T* norm,
                                                                  int64_t outer, int64_t n, int64_t inner, double eps) {
  ADDP_MAX_THREADS(Members::kBlockSize);
  for (int64_t row = Members::first(); row < outer * inner; row += Members::step()) {
    const int64_t at = row / inner * n * inner + row % inner;
    double dot = 0;
    for (int64_t k = Members::rank(); k < n; k += Members::kSize) {
      dot += static_cast<double>(dy[at + k * inner]) * static_cast<double>(x[at + k * inner]);
    }
    dot = Members::sum(dot);
    const double r = norm[row];
    const T scale = static_cast<T>(1 / (r + eps));
    const T pull = static_cast<T>(r > 0 ? dot / (r * (r + eps) * (r + eps)) : 0);
    for (int64_t k = Members::rank(); k < n; k += Members::kSize) {
      const int64_t j = at + k * inner;
      dx[j] = dy[j] * scale - x[j] * pull;
    }
  }
}

template <class F>
void with_unit_norm_team(int64_t inner, F&& f) {
  if (inner == 1) return f(Team<kWarp>{});
  f(Team<1>{});
}

}  // namespace

template <class T>
void layer_norm_fwd(Cuda dev, T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t N, int64_t D,
                    double eps) {
  if (N == 0) return;
  const bool packed = D % kPack<T> == 0 && aligned(y, x, weight, bias);
  with_team(D, [&](auto team) {
    using Members = decltype(team);
    launch(layer_norm_fwd_kernel<Members, T>, Members::dims(dev, N), y, mean, rstd, x, weight, bias, N, D, eps, packed);
  });
}

template <class T>
void layer_norm_bwd(Cuda dev, T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
                    const T* rstd, int64_t N, int64_t D) {
  const int64_t blocks = ceil_div(N, kNormRows);
  const Scratch scratch(dev, 2 * blocks * D * static_cast<int64_t>(sizeof(T)));
  T* partial = scratch.as<T>();
  const bool packed = D % kPack<T> == 0 && aligned(dx, partial, dy, x, weight);
  if (blocks > 0) {
    launch(layer_norm_bwd_kernel<T>, Dims{grid_for(blocks, 1), dim3(kBlock), 0, stream_of(dev)}, dx, partial, dy, x,
           weight, mean, rstd, N, D, blocks, packed);
  }
  sum_axis(dev, dweight, static_cast<const T*>(partial), 1, blocks, D, 1.0);
  sum_axis(dev, dbias, static_cast<const T*>(partial + blocks * D), 1, blocks, D, 1.0);
}

template <class T>
void unit_norm_fwd(Cuda dev, T* y, T* norm, const T* x, int64_t outer, int64_t n, int64_t inner, double eps) {
  if (outer * inner == 0) return;
  with_unit_norm_team(inner, [&](auto team) {
    using Members = decltype(team);
    launch(unit_norm_fwd_kernel<Members, T>, Members::dims(dev, outer * inner), y, norm, x, outer, n, inner, eps);
  });
}

template <class T>
void unit_norm_bwd(Cuda dev, T* dx, const T* dy, const T* x, const T* norm, int64_t outer, int64_t n, int64_t inner,
                   double eps) {
  if (outer * inner == 0) return;
  with_unit_norm_team(inner, [&](auto team) {
    using Members = decltype(team);
    launch(unit_norm_bwd_kernel<Members, T>, Members::dims(dev, outer * inner), dx, dy, x, norm, outer, n, inner, eps);
  });
}

#define ADDP_INSTANTIATE(T)                                                                                           \
  template void layer_norm_fwd(Cuda, T*, T*, T*, const T*, const T*, const T*, int64_t, int64_t, double);             \
  template void layer_norm_bwd(Cuda, T*, T*, T*, const T*, const T*, const T*, const T*, const T*, int64_t, int64_t); \
  template void unit_norm_fwd(Cuda, T*, T*, const T*, int64_t, int64_t, int64_t, double);                             \
  template void unit_norm_bwd(Cuda, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, double);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
