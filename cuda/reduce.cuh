// What the kernels share: grids, 16-byte accesses, and sums and maxima over warps, blocks and teams. Every order of
// summation is a tree fixed by the problem's size, so that results never vary; grids never depend on the device.
#pragma once
#include <type_traits>

#include "cuda/context.h"
#include "cuda/device.h"

namespace addp::kernel {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kBlock = 256;   // threads of a block, unless a kernel has reason to differ
constexpr int kResident = 1;  // blocks that a multiprocessor must hold: so ptxas spills no register to fit in more
constexpr int64_t kMaxBlocks = kGridBlocks;  // beyond this, threads walk on by the size of the grid

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks for `items` at `per_block` to a block; kernels loop, so that any number is right.
inline dim3 grid_for(int64_t items, int64_t per_block = kBlock) {
  const int64_t blocks = ceil_div(items, per_block);
  return dim3(static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks));
}

// One thread an item, blocks of kBlock.
inline Dims dims_for(Cuda dev, int64_t items) { return Dims{grid_for(items), dim3(kBlock), 0, stream_of(dev)}; }
// The same for n elements of T that a thread takes by the pack when `packed`; see for_packs.
template <class T>
Dims pack_dims(Cuda dev, int64_t n, bool packed) {
  return dims_for(dev, packed ? ceil_div(n, static_cast<int64_t>(16 / sizeof(T))) : n);
}

__device__ inline int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t thread_count() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// ---- 16-byte accesses

// W consecutive elements in registers.
template <class T, int W>
struct Pack {
  T v[W];
  __device__ T& operator[](int i) { return v[i]; }
  __device__ const T& operator[](int i) const { return v[i]; }
};

template <class T>
inline constexpr int kPack = 16 / sizeof(T);
template <int W>
using Width = std::integral_constant<int, W>;

// Whether all these arrays (null or not) may be read in packs; rows of D in addition need D % kPack == 0.
template <class... P>
bool aligned(const P*... arrays) {
  return ((reinterpret_cast<uintptr_t>(arrays) % 16 == 0) && ...);
}

template <class T>
__device__ Pack<T, 1> load(const T* p, Width<1>) {
  return {{*p}};
}
__device__ inline Pack<float, 4> load(const float* p, Width<4>) {
  const float4 w = *reinterpret_cast<const float4*>(p);
  return {{w.x, w.y, w.z, w.w}};
}
__device__ inline Pack<double, 2> load(const double* p, Width<2>) {
  const double2 w = *reinterpret_cast<const double2*>(p);
  return {{w.x, w.y}};
}
template <class T>
__device__ void store(T* p, Pack<T, 1> v) {
  *p = v[0];
}
__device__ inline void store(float* p, Pack<float, 4> v) {
  *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ inline void store(double* p, Pack<double, 2> v) {
  *reinterpret_cast<double2*>(p) = make_double2(v[0], v[1]);
}

// Calls f(i, Width<W>) so that thread `rank` of `count` gets its share of [0, n): whole packs when `packed`, and single
// elements for the rest.
template <class T, class F>
__device__ void for_packs(int64_t n, bool packed, int64_t rank, int64_t count, F&& f) {
  constexpr int W = kPack<T>;
  const int64_t packs = packed ? n / W : 0;
  for (int64_t p = rank; p < packs; p += count) f(p * W, Width<W>{});
  for (int64_t i = packs * W + rank; i < n; i += count) f(i, Width<1>{});
}

// ---- Reductions over a warp or a block (of whole warps, one-dimensional); every thread of it calls and gets the
// result

template <class T>
__device__ T warp_sum(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

template <class T>
__device__ T warp_max(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, step);
    value = other > value ? other : value;
  }
  return value;
}

// `value` of each warp, combined in the order of the warps; every thread of the block gets the result.
template <class T, class Combine>
__device__ T combine_warps(T* of_warp, T value, Combine combine) {
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = of_warp[0];
  for (unsigned w = 1; w < blockDim.x / kWarp; ++w) value = combine(value, of_warp[w]);
  __syncthreads();  // the next call writes of_warp again
  return value;
}

template <class T>
__device__ T* warp_results() {
  ADDP_SHARED(T, of_warp, [kWarp]);
  return of_warp;
}

template <class T>
__device__ T block_sum(T value) {
  return combine_warps(warp_results<T>(), warp_sum(value), [](T a, T b) { return a + b; });
}

template <class T>
__device__ T block_max(T value) {
  return combine_warps(warp_results<T>(), warp_max(value), [](T a, T b) { return b > a ? b : a; });
}

// ---- Teams: the threads that work on one row together, a single one, a warp, or a whole block

template <int kThreads>
struct Team {
  static_assert(kThreads == 1 || kThreads == kWarp || (kThreads > kWarp && kThreads % kWarp == 0));
  static constexpr int kSize = kThreads;
  static constexpr int kBlockSize = kThreads > kWarp ? kThreads : kBlock;
  static constexpr int kPerBlock = kBlockSize / kThreads;

  __device__ static int rank() { return static_cast<int>(threadIdx.x) % kThreads; }
  // A team's rows: for (int64_t r = first(); r < rows; r += step()).
  __device__ static int64_t first() { return static_cast<int64_t>(blockIdx.x) * kPerBlock + threadIdx.x / kThreads; }
  __device__ static int64_t step() { return static_cast<int64_t>(gridDim.x) * kPerBlock; }

  template <class T>
  __device__ static T sum(T value) {
    if constexpr (kThreads == 1) return value;
    if constexpr (kThreads == kWarp) return warp_sum(value);
    if constexpr (kThreads > kWarp) return block_sum(value);
  }
  template <class T>
  __device__ static T max(T value) {
    if constexpr (kThreads == 1) return value;
    if constexpr (kThreads == kWarp) return warp_max(value);
    if constexpr (kThreads > kWarp) return block_max(value);
  }

  static Dims dims(Cuda dev, int64_t rows) {
    return Dims{grid_for(rows, kPerBlock), dim3(kBlockSize), 0, stream_of(dev)};
  }
};

// Calls f(Team) with a warp for rows of few elements, with a block for long ones.
template <class F>
void with_team(int64_t row_elements, F&& f) {
  if (row_elements <= 1024) return f(Team<kWarp>{});
  f(Team<256>{});
}

// ---- Sums of whole arrays, accumulated in double (reduce.cu). X, Y: float or double.

// *y = sum over i < n of x[i]; all in device memory.
template <class Y, class X>
void sum_all(Cuda dev, Y* y, const X* x, int64_t n);

}  // namespace addp::kernel
