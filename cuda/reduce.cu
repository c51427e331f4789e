// Reductions on the device: sums over an axis and their backward, sum of squares, argmax. Sums are accumulated in
// double, in chunks of fixed size; where a sum has more than one chunk, a further launch adds up their sums.
#include "cuda/reduce.cuh"

namespace addp::kernel {
namespace {

constexpr int64_t kRowChunk = 8192;    // consecutive elements that a team adds up
constexpr int64_t kColumnChunk = 256;  // rows that a block adds up, for each of its columns

struct Identity {
  __device__ double operator()(double v) const { return v; }
};
struct Square {
  __device__ double operator()(double v) const { return v * v; }
};

int64_t chunks_of(int64_t n, int64_t chunk) { return n <= chunk ? 1 : ceil_div(n, chunk); }

// ---- Sums of contiguous rows

// y[o, c] = scale * sum of f(x[o, k]) over the k of chunk c. x: [outer, n], y: [outer, chunks].
template <class Members, class F, class Y, class X>
__global__ __launch_bounds__(Members::kBlockSize, kResident) void sum_rows_kernel(F f, Y* y, const X* x, int64_t outer,
                                                                                  int64_t n, int64_t chunks,
                                                                                  double scale, bool packed) {
  ADDP_MAX_THREADS(Members::kBlockSize);
  for (int64_t task = Members::first(); task < outer * chunks; task += Members::step()) {
    const int64_t begin = task % chunks * kRowChunk, count = n - begin < kRowChunk ? n - begin : kRowChunk;
    const X* from = x + task / chunks * n + begin;
    double total = 0;
    for_packs<X>(count, packed, Members::rank(), Members::kSize, [&]<int W>(int64_t i, Width<W> width) {
      const Pack<X, W> v = load(from + i, width);
      for (int k = 0; k < W; ++k) total += f(static_cast<double>(v[k]));
    });
    total = Members::sum(total);
    if (Members::rank() == 0) y[task] = static_cast<Y>(scale * total);
  }
}

// y[o] = scale * sum over k of f(x[o, k]). x: [outer, n].
template <class F, class Y, class X>
void sum_rows(Cuda dev, F f, Y* y, const X* x, int64_t outer, int64_t n, double scale) {
  if (outer == 0) return;
  const int64_t chunks = chunks_of(n, kRowChunk);
  const bool packed = aligned(x) && (outer == 1 || n % kPack<X> == 0);
  if (chunks == 1) {
    return with_team(n, [&](auto team) {
      using Members = decltype(team);
      launch(sum_rows_kernel<Members, F, Y, X>, Members::dims(dev, outer), f, y, x, outer, n, chunks, scale, packed);
    });
  }
  using Members = Team<512>;
  const Scratch partial(dev, outer * chunks * static_cast<int64_t>(sizeof(double)));
  launch(sum_rows_kernel<Members, F, double, X>, Members::dims(dev, outer * chunks), f, partial.as<double>(), x, outer,
         n, chunks, 1.0, packed);
  sum_rows(dev, Identity{}, y, partial.as<double>(), outer, chunks, scale);
}

// ---- Sums over a middle axis: neighbouring threads take neighbouring columns

// y[o, c, i] = scale * sum of x[o, k, i] over the k of chunk c. Row r of a chunk is added by row lane r % kRowLanes.
template <int kRowLanes, class Y, class X>
__global__ __launch_bounds__(kBlock, kResident) void sum_columns_kernel(Y* y, const X* x, int64_t outer, int64_t n,
                                                                        int64_t inner, int64_t chunks, double scale) {
  ADDP_MAX_THREADS(kBlock);
  constexpr int kColumns = kBlock / kRowLanes;
  ADDP_SHARED(double, totals, [kRowLanes][kColumns]);
  const int column = static_cast<int>(threadIdx.x) % kColumns, lane = static_cast<int>(threadIdx.x) / kColumns;
  const int64_t tiles = ceil_div(inner, kColumns);
  for (int64_t task = blockIdx.x; task < outer * chunks * tiles; task += gridDim.x) {
    const int64_t i = task % tiles * kColumns + column, part = task / tiles;
    const int64_t begin = part % chunks * kColumnChunk, end = n - begin < kColumnChunk ? n : begin + kColumnChunk;
    double total = 0;
    if (i < inner) {
      const X* from = x + part / chunks * n * inner + i;
      for (int64_t k = begin + lane; k < end; k += kRowLanes) total += static_cast<double>(from[k * inner]);
    }
    if constexpr (kRowLanes > 1) {
      totals[lane][column] = total;
      __syncthreads();
      for (int other = 1; other < kRowLanes && lane == 0; ++other) total += totals[other][column];
      __syncthreads();
    }
    if (lane == 0 && i < inner) y[part * inner + i] = static_cast<Y>(scale * total);
  }
}

template <class Y, class X>
void launch_columns(Cuda dev, Y* y, const X* x, int64_t outer, int64_t n, int64_t inner, int64_t chunks, double scale) {
  constexpr int kRowLanes = 8;
  const auto run = [&](auto kernel, int columns) {
    const dim3 grid = grid_for(outer * chunks * ceil_div(inner, columns), 1);
    launch(kernel, Dims{grid, dim3(kBlock), 0, stream_of(dev)}, y, x, outer, n, inner, chunks, scale);
  };
  if (n < 2 * kRowLanes) return run(sum_columns_kernel<1, Y, X>, kBlock);
  run(sum_columns_kernel<kRowLanes, Y, X>, kBlock / kRowLanes);
}

template <class Y, class X>
void sum_columns(Cuda dev, Y* y, const X* x, int64_t outer, int64_t n, int64_t inner, double scale) {
  if (outer * inner == 0) return;
  const int64_t chunks = chunks_of(n, kColumnChunk);
  if (chunks == 1) return launch_columns(dev, y, x, outer, n, inner, chunks, scale);
  const Scratch partial(dev, outer * chunks * inner * static_cast<int64_t>(sizeof(double)));
  launch_columns(dev, partial.as<double>(), x, outer, n, inner, chunks, 1.0);
  sum_columns(dev, y, partial.as<double>(), outer, chunks, inner, scale);
}

// ---- Broadcast and argmax

// With packs, a pack lies in one row of x (inner a multiple of it), or is one element of x (inner 1).
template <class T>
__global__ __launch_bounds__(kBlock, kResident) void broadcast_axis_kernel(T* y, const T* x, int64_t total, int64_t n,
                                                                           int64_t inner, T scale, bool packed) {
  ADDP_MAX_THREADS(kBlock);
  for_packs<T>(total, packed, thread_index(), thread_count(), [&]<int W>(int64_t i, Width<W> width) {
    Pack<T, W> v;
    if (inner == 1) {
      const T value = x[i / n];
      for (int k = 0; k < W; ++k) v[k] = value;
    } else {
      v = load(x + i / (n * inner) * inner + i % inner, width);
    }
    for (int k = 0; k < W; ++k) v[k] *= scale;
    store(y + i, v);
  });
}

// A warp a row. The warp's lanes begin with element 0, so that a NaN there stays (and gives 0), and others are skipped.
template <class T>
__global__ __launch_bounds__(kBlock, kResident) void argmax_rows_kernel(int64_t* index, const T* x, int64_t N,
                                                                        int64_t D) {
  ADDP_MAX_THREADS(kBlock);
  using Members = Team<kWarp>;
  for (int64_t r = Members::first(); r < N; r += Members::step()) {
    const T* row = x + r * D;
    T best = row[0];
    int64_t at = 0;
    for (int64_t i = Members::rank(); i < D; i += kWarp) {
      const T v = row[i];
      if (v > best) best = v, at = i;
    }
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(kAllLanes, best, step);
      const int64_t other_at = __shfl_xor_sync(kAllLanes, at, step);
      if (other > best || (other == best && other_at < at)) best = other, at = other_at;
    }
    if (Members::rank() == 0) index[r] = at;
  }
}

}  // namespace

template <class T>
void sum_axis(Cuda dev, T* y, const T* x, int64_t outer, int64_t n, int64_t inner, double scale) {
  if (inner == 1) return sum_rows(dev, Identity{}, y, x, outer, n, scale);
  sum_columns(dev, y, x, outer, n, inner, scale);
}

template <class T>
void broadcast_axis(Cuda dev, T* y, const T* x, int64_t outer, int64_t n, int64_t inner, double scale) {
  const int64_t total = outer * n * inner;
  if (total == 0) return;
  const bool packed = aligned(y, x) && (inner == 1 ? n : inner) % kPack<T> == 0;
  launch(broadcast_axis_kernel<T>, pack_dims<T>(dev, total, packed), y, x, total, n, inner, static_cast<T>(scale),
         packed);
}

template <class T>
void sum_squares(Cuda dev, double* result, const T* x, int64_t n) {
  sum_rows(dev, Square{}, result, x, 1, n, 1.0);
}

template <class T>
void argmax_rows(Cuda dev, int64_t* index, const T* x, int64_t N, int64_t D) {
  if (N == 0) return;
  launch(argmax_rows_kernel<T>, Team<kWarp>::dims(dev, N), index, x, N, D);
}

template <class Y, class X>
void sum_all(Cuda dev, Y* y, const X* x, int64_t n) {
  sum_rows(dev, Identity{}, y, x, 1, n, 1.0);
}
template void sum_all(Cuda, double*, const float*, int64_t);
template void sum_all(Cuda, double*, const double*, int64_t);
template void sum_all(Cuda, float*, const double*, int64_t);

#define ADDP_INSTANTIATE(T)                                                            \
  template void sum_axis(Cuda, T*, const T*, int64_t, int64_t, int64_t, double);       \
  template void broadcast_axis(Cuda, T*, const T*, int64_t, int64_t, int64_t, double); \
  template void sum_squares(Cuda, double*, const T*, int64_t);                         \
  template void argmax_rows(Cuda, int64_t*, const T*, int64_t, int64_t);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
