// Group norm (with SiLU) and batch norm on the device; gradients as in norm.cu, over a group or a channel.
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
__global__ __launch_bounds__(kBlock, kResident) void slice_sums_kernel(F f, Sums<double>* sums, int64_t planes,
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
__global__ __launch_bounds__(Members::kBlockSize,
                             kResident) void group_norm_fwd_kernel(T* y, T* mean, T* rstd, const T* x, const T* weight,
                                                                   const T* bias, int64_t groups, int64_t channels,
                                                                   int64_t S, int64_t G, double eps, bool silu_after,
                                                                   bool packed) {
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
__global__ __launch_bounds__(2 * kBlock, kResident) void group_norm_bwd_kernel(
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

constexpr int64_t kSumsBytes = static_cast<int64_t>(sizeof(Sums<double>));

}  // namespace

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

#define ADDP_INSTANTIATE(T)                                                                                           \
  template void group_norm_fwd(Cuda, T*, T*, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, int64_t,    \
                               double, bool);                                                                         \
  template void group_norm_bwd(Cuda, T*, T*, T*, const T*, const T*, const T*, const T*, const T*, const T*, int64_t, \
                               int64_t, int64_t, int64_t, bool);                                                      \
  template void channel_moments(Cuda, T*, T*, const T*, int64_t, int64_t, int64_t);                                   \
  template void batch_norm_fwd(Cuda, T*, const T*, const T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, \
                               double);                                                                               \
  template void batch_norm_bwd(Cuda, T*, T*, T*, const T*, const T*, const T*, const T*, const T*, int64_t, int64_t,  \
                               int64_t, double, bool);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
