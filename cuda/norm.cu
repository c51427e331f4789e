// Normalisation on the device: layer norm, group norm (with SiLU), batch norm, unit norm.
// All share x^ = (x - mean) rstd over some set of n elements. With g = dL/dx^ the gradient is
//   dx = rstd (g - mean(g) - x^ mean(g x^)),
// because mean and rstd depend on x: dmean/dx = 1 / n, drstd/dx = -rstd^2 x^ / n.
// Sums over a channel are built from slices of its planes, one slice a warp, and meet in double.
#include "cuda/math.cuh"
#include "cuda/reduce.cuh"

namespace addp::kernel {
namespace {

template <class Members, class T, class F>
__device__ void for_row(int64_t D, bool packed, F&& f) {
  for_packs<T>(D, packed, Members::rank(), Members::kSize, f);
}

// Two sums that belong together: of g and g x^, or of a value and its square.
template <class T>
struct Sums {
  T first, second;
};

// ---- Layer norm: a team a row

template <class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize, Members::kResident * 4 / sizeof(T)) void layer_norm_fwd_kernel(
    T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t N, int64_t D, double eps, bool packed) {
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
__global__ __launch_bounds__(kBlock, kResident * 4 /
                                         sizeof(T)) void layer_norm_bwd_kernel(T* dx, T* partial, const T* dy,
                                                                               const T* x, const T* weight,
                                                                               const T* mean, const T* rstd, int64_t N,
                                                                               int64_t D, int64_t blocks, bool packed) {
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

// ---- Sums over channels. A plane [S] is cut into slices; a warp adds up one slice.

constexpr int64_t kSlice = 1024;

int64_t slices_of(int64_t S) { return S <= kSlice ? 1 : ceil_div(S, kSlice); }

// Calls f(j, Width) for the elements [begin of the slice, its end) of a plane that starts at x + plane * S.
template <class T, class F>
__device__ void for_slice(int64_t slice, int64_t S, bool packed, F&& f) {
  const int64_t begin = slice * kSlice, count = S - begin < kSlice ? S - begin : kSlice;
  for_row<Team<kWarp>, T>(count, packed, [&]<int W>(int64_t i, Width<W> width) { f(begin + i, width); });
}

// Sums of x - shift and its square over a slice, in double. With a shift from the data itself the variance follows from
// one pass, without cancellation.
template <class T>
struct Moments {
  const T* x;
  int64_t S;
  __device__ Sums<double> operator()(int64_t plane, int64_t c, int64_t slice, bool packed) const {
    const double shift = x[c * S];
    Sums<double> s{};
    for_slice<T>(slice, S, packed, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<T, W> v = load(x + plane * S + i, width);
      for (int k = 0; k < W; ++k) {
        const double d = static_cast<double>(v[k]) - shift;
        s.first += d;
        s.second += d * d;
      }
    });
    return s;
  }
};

// Sums of dy and dy x^ over a slice.
template <class T>
struct BatchNormSums {
  const T *dy, *x, *mean, *var;
  int64_t S;
  double eps;
  __device__ Sums<double> operator()(int64_t plane, int64_t c, int64_t slice, bool packed) const {
    const T m = mean[c], rs = static_cast<T>(1 / sqrt(static_cast<double>(var[c]) + eps));
    Sums<T> s{};
    for_slice<T>(slice, S, packed, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<T, W> d = load(dy + plane * S + i, width), v = load(x + plane * S + i, width);
      for (int k = 0; k < W; ++k) {
        s.first += d[k];
        s.second += d[k] * ((v[k] - m) * rs);
      }
    });
    return {static_cast<double>(s.first), static_cast<double>(s.second)};
  }
};

// sums[plane, slice] = f over it.
template <class F>
__global__ __launch_bounds__(kBlock, kResident / 2) void slice_sums_kernel(F f, Sums<double>* sums, int64_t planes,
                                                                           int64_t C, int64_t slices, bool packed) {
  ADDP_MAX_THREADS(kBlock);
  using Members = Team<kWarp>;
  for (int64_t task = Members::first(); task < planes * slices; task += Members::step()) {
    const int64_t plane = task / slices;
    Sums<double> s = f(plane, plane % C, task % slices, packed);
    s = {warp_sum(s.first), warp_sum(s.second)};
    if (Members::rank() == 0) sums[task] = s;
  }
}

// What becomes of a channel's sums.
template <class T>
struct StoreMoments {
  T *mean, *var;
  const T* x;
  int64_t S;
  double n;
  __device__ void operator()(int64_t c, Sums<double> s) const {
    const double m = s.first / n, squares = s.second / n - m * m;
    mean[c] = static_cast<T>(static_cast<double>(x[c * S]) + m);
    var[c] = static_cast<T>(squares < 0 ? 0 : squares);
  }
};
template <class T>
struct StoreGradients {
  T *dweight, *dbias;   // or null
  Sums<double>* total;  // or null
  __device__ void operator()(int64_t c, Sums<double> s) const {
    if (dweight) dweight[c] = static_cast<T>(s.second);
    if (dbias) dbias[c] = static_cast<T>(s.first);
    if (total) total[c] = s;
  }
};

// A warp a channel: the sum over images and slices of sums: [B, C, slices].
template <class F>
__global__ __launch_bounds__(kBlock, kResident) void channel_totals_kernel(F store_total, const Sums<double>* sums,
                                                                           int64_t B, int64_t C, int64_t slices) {
  ADDP_MAX_THREADS(kBlock);
  using Members = Team<kWarp>;
  for (int64_t c = Members::first(); c < C; c += Members::step()) {
    Sums<double> total{};
    for (int64_t t = Members::rank(); t < B * slices; t += kWarp) {
      const Sums<double> s = sums[(t / slices * C + c) * slices + t % slices];
      total.first += s.first;
      total.second += s.second;
    }
    total = {warp_sum(total.first), warp_sum(total.second)};
    if (Members::rank() == 0) store_total(c, total);
  }
}

template <class F>
void channel_totals(Cuda dev, F store_total, const Sums<double>* sums, int64_t B, int64_t C, int64_t slices) {
  launch(channel_totals_kernel<F>, Team<kWarp>::dims(dev, C), store_total, sums, B, C, slices);
}

// ---- Group norm: a team an image and group, n = C / G * S elements in a row

template <class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize, Members::kResident * 4 / sizeof(T)) void group_norm_fwd_kernel(
    T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t groups, int64_t channels, int64_t S,
    int64_t G, double eps, bool silu_after, bool packed) {
  ADDP_MAX_THREADS(Members::kBlockSize);
  const int64_t n = channels * S;
  for (int64_t group = Members::first(); group < groups; group += Members::step()) {
    const T* from = x + group * n;
    const double shift = from[0];  // as in Moments
    Sums<double> s{};
    for_row<Members, T>(n, packed, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<T, W> v = load(from + i, width);
      for (int k = 0; k < W; ++k) {
        const double d = static_cast<double>(v[k]) - shift;
        s.first += d;
        s.second += d * d;
      }
    });
    const double m = Members::sum(s.first) / static_cast<double>(n);
    const double variance = Members::sum(s.second) / static_cast<double>(n) - m * m;
    const T center = static_cast<T>(shift + m), rs = static_cast<T>(1 / sqrt((variance < 0 ? 0 : variance) + eps));
    const int64_t c0 = group % G * channels;
    for_row<Members, T>(n, packed, [&]<int W>(int64_t i, Width<W> width) {
      Pack<T, W> v = load(from + i, width);
      const int64_t c = c0 + i / S;
      const T scale = rs * weight[c], move = bias[c];
      for (int k = 0; k < W; ++k) {
        const T z = (v[k] - center) * scale + move;
        v[k] = silu_after ? silu(z) : z;
      }
      store(y + group * n + i, v);
    });
    if (Members::rank() == 0) {
      mean[group] = center;
      rstd[group] = rs;
    }
  }
}

// d dy/dz of an element: z = x^ weight + bias.
template <class T>
__device__ T through_silu(T d, T normal, T weight, T bias, bool silu_after) {
  return silu_after ? d * silu_derivative(normal * weight + bias) : d;
}

// First the block's warps add up dz and dz x^ over the slices of each of the group's channels, sums: [B, C, slices];
// these give mean(g) and mean(g x^), g = dz weight; then dx. dz is computed twice, which is cheaper than storing it.
template <class T>
__global__ __launch_bounds__(2 * kBlock, kResident * 2 / sizeof(T)) void group_norm_bwd_kernel(
    T* dx, Sums<double>* sums, const T* dy, const T* x, const T* weight, const T* bias, const T* mean, const T* rstd,
    int64_t groups, int64_t channels, int64_t S, int64_t G, int64_t slices, bool silu_after, bool packed) {
  ADDP_MAX_THREADS(2 * kBlock);
  constexpr int kWarps = 2 * kBlock / kWarp;
  const int64_t n = channels * S, tasks = channels * slices;
  for (int64_t group = blockIdx.x; group < groups; group += gridDim.x) {
    const T m = mean[group], rs = rstd[group];
    const int64_t c0 = group % G * channels;
    Sums<double> group_sum{};  // of the slices that this warp adds up; lane 0 has it
    for (int64_t task = threadIdx.x / kWarp; task < tasks; task += kWarps) {
      const int64_t plane = group * n + task / slices * S;
      const T w = weight[c0 + task / slices], b = bias[c0 + task / slices];
      Sums<T> s{};
      for_slice<T>(task % slices, S, packed, [&]<int W>(int64_t i, Width<W> width) {
        const Pack<T, W> v = load(x + plane + i, width), d = load(dy + plane + i, width);
        for (int k = 0; k < W; ++k) {
          const T normal = (v[k] - m) * rs, dz = through_silu(d[k], normal, w, b, silu_after);
          s.first += dz;
          s.second += dz * normal;
        }
      });
      const Sums<double> total{warp_sum(static_cast<double>(s.first)), warp_sum(static_cast<double>(s.second))};
      if (threadIdx.x % kWarp != 0) continue;
      sums[group * tasks + task] = total;
      group_sum.first += total.first * static_cast<double>(w);
      group_sum.second += total.second * static_cast<double>(w);
    }
    const T g_mean = static_cast<T>(block_sum(group_sum.first) / static_cast<double>(n));
    const T gx_mean = static_cast<T>(block_sum(group_sum.second) / static_cast<double>(n));
    for_packs<T>(n, packed, threadIdx.x, 2 * kBlock, [&]<int W>(int64_t i, Width<W> width) {
      const int64_t c = c0 + i / S;
      const T w = weight[c], b = bias[c];
      const Pack<T, W> v = load(x + group * n + i, width);
      Pack<T, W> d = load(dy + group * n + i, width);
      for (int k = 0; k < W; ++k) {
        const T normal = (v[k] - m) * rs;
        d[k] = rs * (through_silu(d[k], normal, w, b, silu_after) * w - g_mean - normal * gx_mean);
      }
      store(dx + group * n + i, d);
    });
  }
}

// ---- Batch norm: a warp a slice of a plane

template <class T>
__global__ __launch_bounds__(kBlock, kResident) void batch_norm_fwd_kernel(T* y, const T* x, const T* mean,
                                                                           const T* var, const T* weight, const T* bias,
                                                                           int64_t planes, int64_t C, int64_t S,
                                                                           int64_t slices, double eps, bool packed) {
  ADDP_MAX_THREADS(kBlock);
  using Members = Team<kWarp>;
  for (int64_t task = Members::first(); task < planes * slices; task += Members::step()) {
    const int64_t plane = task / slices, c = plane % C;
    const double w = weight ? static_cast<double>(weight[c]) : 1.0;
    const T scale = static_cast<T>(w / sqrt(static_cast<double>(var[c]) + eps));
    const T center = mean[c], move = bias ? bias[c] : T(0);
    for_slice<T>(task % slices, S, packed, [&]<int W>(int64_t i, Width<W> width) {
      Pack<T, W> v = load(x + plane * S + i, width);
      for (int k = 0; k < W; ++k) v[k] = (v[k] - center) * scale + move;
      store(y + plane * S + i, v);
    });
  }
}

// total: the channels' sums of dy and dy x^, or null where mean and var are constants.
template <class T>
__global__ __launch_bounds__(kBlock, kResident) void batch_norm_bwd_kernel(
    T* dx, const Sums<double>* total, const T* dy, const T* x, const T* mean, const T* var, const T* weight,
    int64_t planes, int64_t C, int64_t S, int64_t slices, double n, double eps, bool packed) {
  ADDP_MAX_THREADS(kBlock);
  using Members = Team<kWarp>;
  for (int64_t task = Members::first(); task < planes * slices; task += Members::step()) {
    const int64_t plane = task / slices, c = plane % C;
    const T m = mean[c], rs = static_cast<T>(1 / sqrt(static_cast<double>(var[c]) + eps));
    const T scale = weight ? weight[c] * rs : rs;
    const T g_mean = total ? static_cast<T>(total[c].first / n) : T(0);
    const T gx_mean = total ? static_cast<T>(total[c].second / n) : T(0);
    for_slice<T>(task % slices, S, packed, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<T, W> v = load(x + plane * S + i, width);
      Pack<T, W> d = load(dy + plane * S + i, width);
      for (int k = 0; k < W; ++k) d[k] = scale * (d[k] - g_mean - (v[k] - m) * rs * gx_mean);
      store(dx + plane * S + i, d);
    });
  }
}

// ---- Unit norm: y = x / (r + eps), r the norm of x over the middle axis. A warp a row where rows are contiguous, else
// a thread, beside its neighbours in `inner`.

template <class Members, class T>
__global__ __launch_bounds__(Members::kBlockSize,
                             Members::kResident) void unit_norm_fwd_kernel(T* y, T* norm, const T* x, int64_t outer,
                                                                           int64_t n, int64_t inner, double eps) {
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
                             Members::kResident) void unit_norm_bwd_kernel(T* dx, const T* dy, const T* x,
                                                                           const T* norm, int64_t outer, int64_t n,
                                                                           int64_t inner, double eps) {
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

constexpr int64_t kSumsBytes = static_cast<int64_t>(sizeof(Sums<double>));

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
void group_norm_fwd(Cuda dev, T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t B, int64_t C,
                    int64_t S, int64_t G, double eps, bool silu) {
  if (B * C * S == 0) return;
  const bool packed = S % kPack<T> == 0 && aligned(y, x);
  with_team(C / G * S, [&](auto team) {
    using Members = decltype(team);
    launch(group_norm_fwd_kernel<Members, T>, Members::dims(dev, B * G), y, mean, rstd, x, weight, bias, B * G, C / G,
           S, G, eps, silu, packed);
  });
}

template <class T>
void group_norm_bwd(Cuda dev, T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* bias,
                    const T* mean, const T* rstd, int64_t B, int64_t C, int64_t S, int64_t G, bool silu) {
  const int64_t slices = slices_of(S);
  const Scratch scratch(dev, B * C * slices * kSumsBytes);
  auto* sums = scratch.as<Sums<double>>();
  const bool packed = S % kPack<T> == 0 && aligned(dx, dy, x);
  if (B * C * S > 0) {
    launch(group_norm_bwd_kernel<T>, Dims{grid_for(B * G, 1), dim3(2 * kBlock), 0, stream_of(dev)}, dx, sums, dy, x,
           weight, bias, mean, rstd, B * G, C / G, S, G, slices, silu, packed);
  }
  channel_totals(dev, StoreGradients<T>{dweight, dbias, nullptr}, sums, B, C, slices);
}

template <class T>
void channel_moments(Cuda dev, T* mean, T* var, const T* x, int64_t B, int64_t C, int64_t S) {
  if (B * C * S == 0) return;
  const int64_t slices = slices_of(S);
  const Scratch scratch(dev, B * C * slices * kSumsBytes);
  auto* sums = scratch.as<Sums<double>>();
  const bool packed = S % kPack<T> == 0 && aligned(x);
  launch(slice_sums_kernel<Moments<T>>, Team<kWarp>::dims(dev, B * C * slices), Moments<T>{x, S}, sums, B * C, C,
         slices, packed);
  const double n = static_cast<double>(B) * static_cast<double>(S);
  channel_totals(dev, StoreMoments<T>{mean, var, x, S, n}, sums, B, C, slices);
}

template <class T>
void batch_norm_fwd(Cuda dev, T* y, const T* x, const T* mean, const T* var, const T* weight, const T* bias, int64_t B,
                    int64_t C, int64_t S, double eps) {
  if (B * C * S == 0) return;
  const int64_t slices = slices_of(S);
  const bool packed = S % kPack<T> == 0 && aligned(y, x);
  launch(batch_norm_fwd_kernel<T>, Team<kWarp>::dims(dev, B * C * slices), y, x, mean, var, weight, bias, B * C, C, S,
         slices, eps, packed);
}

template <class T>
void batch_norm_bwd(Cuda dev, T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* mean, const T* var,
                    const T* weight, int64_t B, int64_t C, int64_t S, double eps, bool batch_moments) {
  if (B * C * S == 0) return;
  const int64_t slices = slices_of(S);
  const bool packed = S % kPack<T> == 0 && aligned(dx, dy, x);
  const Scratch scratch(dev, (B * slices + 1) * C * kSumsBytes);
  auto *total = scratch.as<Sums<double>>(), *sums = total + C;
  if (batch_moments || dweight || dbias) {
    using F = BatchNormSums<T>;
    launch(slice_sums_kernel<F>, Team<kWarp>::dims(dev, B * C * slices), F{dy, x, mean, var, S, eps}, sums, B * C, C,
           slices, packed);
    channel_totals(dev, StoreGradients<T>{dweight, dbias, total}, sums, B, C, slices);
  }
  launch(batch_norm_bwd_kernel<T>, Team<kWarp>::dims(dev, B * C * slices), dx, batch_moments ? total : nullptr, dy, x,
         mean, var, weight, B * C, C, S, slices, static_cast<double>(B) * static_cast<double>(S), eps, packed);
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
  template void group_norm_fwd(Cuda, T*, T*, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, int64_t,    \
                               double, bool);                                                                         \
  template void group_norm_bwd(Cuda, T*, T*, T*, const T*, const T*, const T*, const T*, const T*, const T*, int64_t, \
                               int64_t, int64_t, int64_t, bool);                                                      \
  template void channel_moments(Cuda, T*, T*, const T*, int64_t, int64_t, int64_t);                                   \
  template void batch_norm_fwd(Cuda, T*, const T*, const T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, \
                               double);                                                                               \
  template void batch_norm_bwd(Cuda, T*, T*, T*, const T*, const T*, const T*, const T*, const T*, int64_t, int64_t,  \
                               int64_t, double, bool);                                                                \
  template void unit_norm_fwd(Cuda, T*, T*, const T*, int64_t, int64_t, int64_t, double);                             \
  template void unit_norm_bwd(Cuda, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, double);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
