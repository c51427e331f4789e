// Codebook and sampling kernels on the device: nearest codes, code statistics, masks, categorical draws, top-p.
#include "cuda/context.h"
#include "cuda/tile.cuh"
#include "tensor/dispatch.h"

namespace addp::kernel {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// ---- Nearest codes: tiles of 64 rows x 64 codes; grid: tiles of rows x parts of the codes.

constexpr int kDepth = 16;             // columns per step
constexpr int kWantedBlocks = 264;     // two for each multiprocessor of a H100
constexpr int64_t kMostParts = 65535;  // of a grid's second extent

// The smaller distance, the smaller code on ties.
__device__ inline bool is_nearer(double distance, int64_t code, double other_distance, int64_t other_code) {
  return distance < other_distance || (distance == other_distance && code < other_code);
}

// to[k][row] = rows[row, first + k] in double, 0 where there is none.
template <class T>
__device__ inline void load_columns(Quad<double>* to, const T* rows, int64_t count, int64_t first, int64_t D) {
  const int thread = static_cast<int>(threadIdx.x), k = thread % kDepth, quad = thread / kDepth;
  Quad<double> values;
  for (int e = 0; e < 4; ++e) {
    const bool exists = 4 * quad + e < count && first + k < D;
    values.v[e] = exists ? static_cast<double>(rows[(4 * quad + e) * D + first + k]) : 0.0;
  }
  to[k * kPaddedQuads + quad] = values;
}

// distance, code [part, N]: the nearest code of each row among the part's.
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    nearest_in_part_kernel(double* distance, int64_t* code, const T* z, const T* codebook, int64_t N, int64_t K,
                           int64_t D, int64_t part_codes) {
  ADDP_MAX_THREADS(kTileThreads);
  ADDP_SHARED(Quad<double>, a, [kDepth * kPaddedQuads]);
  ADDP_SHARED(Quad<double>, b, [kDepth * kPaddedQuads]);
  const int64_t first_row = int64_t{blockIdx.x} * kTileSide, begin = blockIdx.y * part_codes;
  const int64_t end = begin + part_codes < K ? begin + part_codes : K;
  double nearest[4];
  int64_t chosen[4];
  for (int r = 0; r < 4; ++r) nearest[r] = INFINITY, chosen[r] = begin;
  for (int64_t first = begin; first < end; first += kTileSide) {
    double sum[4][4] = {};
    for (int64_t d = 0; d < D; d += kDepth) {
      __syncthreads();
      load_columns(a, z + first_row * D, N - first_row, d, D);
      load_columns(b, codebook + first * D, end - first, d, D);
      __syncthreads();
      const int depth = static_cast<int>(D - d < kDepth ? D - d : kDepth);
      for (int k = 0; k < depth; ++k) {
        const Quad<double> left = a[k * kPaddedQuads + tile_row()], right = b[k * kPaddedQuads + tile_column()];
        for (int r = 0; r < 4; ++r) {
          for (int c = 0; c < 4; ++c) {
            const double difference = right.v[c] - left.v[r];
            sum[r][c] += difference * difference;
          }
        }
      }
    }
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < 4; ++c) {
        const int64_t k = first + 4 * tile_column() + c;
        if (k < end && sum[r][c] < nearest[r]) nearest[r] = sum[r][c], chosen[r] = k;
      }
    }
  }
  for (int r = 0; r < 4; ++r) {
    for (int lanes = 8; lanes > 0; lanes /= 2) {  // the 16 threads that share a row
      const double other = __shfl_xor_sync(kAllLanes, nearest[r], lanes);
      const int64_t other_code = __shfl_xor_sync(kAllLanes, chosen[r], lanes);
      if (is_nearer(other, other_code, nearest[r], chosen[r])) nearest[r] = other, chosen[r] = other_code;
    }
    const int64_t row = first_row + 4 * tile_row() + r;
    if (tile_column() == 0 && row < N) {
      distance[blockIdx.y * N + row] = nearest[r];
      code[blockIdx.y * N + row] = chosen[r];
    }
  }
}

__global__ void __launch_bounds__(kThreads) nearest_of_parts_kernel(int64_t* code, const double* part_distance,
                                                                    const int64_t* part_code, int64_t N, int parts) {
  ADDP_MAX_THREADS(kThreads);
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= N) return;
  double nearest = part_distance[row];
  int64_t chosen = part_code[row];
  for (int part = 1; part < parts; ++part) {
    const double other = part_distance[part * N + row];
    if (other < nearest) nearest = other, chosen = part_code[part * N + row];
  }
  code[row] = chosen;
}

// ---- Code statistics: a block for each code lists its rows in order, 256 at a time, and adds them up.

template <class T>
__global__ void __launch_bounds__(kThreads)
    code_sums_kernel(T* count, T* sum, const T* z, const int64_t* code, int64_t N, int64_t K, int64_t D, int* fault) {
  ADDP_MAX_THREADS(kThreads);
  ADDP_SHARED(int, listed, [kThreads]);    // rows of this code among the 256, counted from the first
  ADDP_SHARED(int, warp_count, [kWarps]);  // how many of them each warp found
  const int64_t own = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  T* to = sum + own * D;
  for (int64_t d = thread; d < D; d += kThreads) to[d] = 0;
  int64_t total = 0;
  for (int64_t first = 0; first < N; first += kThreads) {
    const int64_t found = first + thread < N ? code[first + thread] : own + 1;
    if (own == 0 && first + thread < N && (found < 0 || found >= K)) atomicMax(fault, 1);
    const unsigned matches = __ballot_sync(kAllLanes, found == own);
    if (lane == 0) warp_count[warp] = __popc(matches);
    __syncthreads();  // also: the list of the round before has been read
    int before = 0, all = 0;
    for (int w = 0; w < kWarps; ++w) {
      before += w < warp ? warp_count[w] : 0;
      all += warp_count[w];
    }
    if (found == own) listed[before + __popc(matches & ((1u << lane) - 1))] = thread;
    __syncthreads();
    for (int64_t d = thread; all > 0 && d < D; d += kThreads) {
      T s = to[d];
      for (int i = 0; i < all; ++i) s += z[(first + listed[i]) * D + d];
      to[d] = s;
    }
    total += all;
  }
  if (thread == 0) count[own] = static_cast<T>(total);
}

// ---- Masks: an element is among the smallest when few others come before it.

constexpr int kMaskRows = 256;
struct Counts {
  int64_t of_row[kMaskRows];  // travels with the launch: the host's array need not outlive it
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    smallest_mask_kernel(T* mask, const T* x, Counts counts, int64_t first_row, int64_t L) {
  ADDP_MAX_THREADS(kThreads);
  ADDP_SHARED(T, others, [kThreads]);
  const int64_t at_row = (first_row + blockIdx.x) * L, i = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  const T own = i < L ? x[at_row + i] : T(0);
  int64_t before = 0;
  for (int64_t first = 0; first < L; first += kThreads) {
    const int64_t count = L - first < kThreads ? L - first : kThreads;
    __syncthreads();
    if (threadIdx.x < count) others[threadIdx.x] = x[at_row + first + threadIdx.x];
    __syncthreads();
    for (int64_t j = 0; j < count; ++j) before += others[j] < own || (others[j] == own && first + j < i);
  }
  if (i < L) mask[at_row + i] = before < counts.of_row[blockIdx.x] ? T(1) : T(0);
}

// ---- Draws and top-p: a warp for each row, walking over it 32 elements at a time.

template <class T>
__global__ void __launch_bounds__(kThreads)
    sample_categorical_kernel(int64_t* code, const T* prob, const T* u, int64_t N, int64_t K) {
  ADDP_MAX_THREADS(kThreads);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= N) return;
  const double limit = u[row];
  double before = 0;
  int64_t chosen = K - 1;
  for (int64_t first = 0; first < K - 1; first += 32) {
    double sum = first + lane < K - 1 ? static_cast<double>(prob[row * K + first + lane]) : 0.0;
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      const double left = __shfl_up_sync(kAllLanes, sum, lanes);
      if (lane >= lanes) sum += left;
    }
    sum += before;
    const unsigned reached = __ballot_sync(kAllLanes, first + lane < K - 1 && !(sum < limit));
    if (reached != 0) {
      chosen = first + __ffs(static_cast<int>(reached)) - 1;
      break;
    }
    before = __shfl_sync(kAllLanes, sum, 31);
  }
  if (lane == 0) code[row] = chosen;
}

// Non-negative numbers compare as their bits do; the others count as 0.
__device__ inline uint64_t order_of(double x) { return x > 0 ? static_cast<uint64_t>(__double_as_longlong(x)) : 0; }
__device__ inline uint64_t order_of(float x) { return x > 0 ? static_cast<uint64_t>(__float_as_uint(x)) : 0; }

// The sum of the row's elements whose order is at least `least`.
template <class T>
__device__ inline double sum_from(const T* row, int64_t K, uint64_t least) {
  double sum = 0;
  for (int64_t i = threadIdx.x % 32; i < K; i += 32)
    sum += order_of(row[i]) >= least ? static_cast<double>(row[i]) : 0.0;
  return warp_sum(sum);
}

template <class T>
__global__ void __launch_bounds__(kThreads) top_p_kernel(T* y, const T* x, int64_t N, int64_t K, double p) {
  ADDP_MAX_THREADS(kThreads);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (at >= N) return;
  const T* row = x + at * K;
  T highest = 0;
  for (int64_t i = lane; i < K; i += 32) highest = row[i] > highest ? row[i] : highest;
  highest = warp_max(highest);
  // The largest element from which on the sum reaches p, by bisection over its bits; 0 when the whole row does not.
  uint64_t least = 0, above = order_of(highest) + 1;
  while (above - least > 1) {
    const uint64_t middle = least + (above - least) / 2;
    (sum_from(row, K, middle) >= p ? least : above) = middle;
  }
  // Of the elements that equal it, the first few that are needed.
  double total = sum_from(row, K, least + 1);
  T value = 0;
  for (int64_t i = lane; i < K; i += 32) value = order_of(row[i]) == least && row[i] > value ? row[i] : value;
  value = warp_max(value);
  int64_t needed = 0;
  for (; needed < K && (needed == 0 || total < p) && (least > 0 || needed == 0); ++needed) total += value;
  if (least == 0) needed = K;
  int64_t seen = 0;
  for (int64_t first = 0; first < K; first += 32) {
    const bool exists = first + lane < K;
    const T own = exists ? row[first + lane] : T(0);
    const uint64_t order = order_of(own);
    const unsigned equal = __ballot_sync(kAllLanes, exists && order == least);
    const bool kept = order > least || (order == least && seen + __popc(equal & ((1u << lane) - 1)) < needed);
    if (exists) y[at * K + first + lane] = kept ? static_cast<T>(own / total) : T(0);
    seen += __popc(equal);
  }
}

}  // namespace

template <class T>
void nearest_codes(Cuda dev, int64_t* code, const T* z, const T* codebook, int64_t N, int64_t K, int64_t D) {
  if (N == 0) return;
  const int64_t row_tiles = ceil_div(N, kTileSide), code_tiles = ceil_div(K, kTileSide);
  int64_t wanted = ceil_div(kWantedBlocks, row_tiles);
  if (wanted > kMostParts) wanted = kMostParts;
  const int64_t part_tiles = ceil_div(code_tiles, wanted), parts = ceil_div(code_tiles, part_tiles);
  const Scratch distance(dev, parts * N * static_cast<int64_t>(sizeof(double)));
  const Scratch part_code(dev, parts * N * static_cast<int64_t>(sizeof(int64_t)));
  launch(nearest_in_part_kernel<T>, {grid_of(row_tiles, parts), kTileThreads, 0, dev.stream}, distance.as<double>(),
         part_code.as<int64_t>(), z, codebook, N, K, D, part_tiles * kTileSide);
  launch(nearest_of_parts_kernel, {grid_of(ceil_div(N, kThreads)), kThreads, 0, dev.stream}, code,
         distance.as<double>(), part_code.as<int64_t>(), N, static_cast<int>(parts));
}

template <class T>
void code_sums(Cuda dev, T* count, T* sum, const T* z, const int64_t* code, int64_t N, int64_t K, int64_t D) {
  if (K == 0) return;
  launch(code_sums_kernel<T>, {grid_of(K), kThreads, 0, dev.stream}, count, sum, z, code, N, K, D, index_fault(dev));
}

template <class T>
void smallest_mask(Cuda dev, T* mask, const T* x, const int64_t* count, int64_t B, int64_t L) {
  if (L == 0) return;
  for (int64_t first = 0; first < B; first += kMaskRows) {
    const int64_t rows = B - first < kMaskRows ? B - first : kMaskRows;
    Counts counts{};
    for (int64_t b = 0; b < rows; ++b) counts.of_row[b] = count[first + b];
    launch(smallest_mask_kernel<T>, {grid_of(rows, ceil_div(L, kThreads)), kThreads, 0, dev.stream}, mask, x, counts,
           first, L);
  }
}

template <class T>
void sample_categorical(Cuda dev, int64_t* code, const T* prob, const T* u, int64_t N, int64_t K) {
  if (N == 0) return;
  launch(sample_categorical_kernel<T>, {grid_of(ceil_div(N, kWarps)), kThreads, 0, dev.stream}, code, prob, u, N, K);
}

template <class T>
void top_p(Cuda dev, T* y, const T* x, int64_t N, int64_t K, double p) {
  if (N == 0) return;
  launch(top_p_kernel<T>, {grid_of(ceil_div(N, kWarps)), kThreads, 0, dev.stream}, y, x, N, K, p);
}

#define INSTANTIATE(T)                                                                        \
  template void nearest_codes(Cuda, int64_t*, const T*, const T*, int64_t, int64_t, int64_t); \
  template void code_sums(Cuda, T*, T*, const T*, const int64_t*, int64_t, int64_t, int64_t); \
  template void smallest_mask(Cuda, T*, const T*, const int64_t*, int64_t, int64_t);          \
  template void sample_categorical(Cuda, int64_t*, const T*, const T*, int64_t, int64_t);     \
  template void top_p(Cuda, T*, const T*, int64_t, int64_t, double);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
