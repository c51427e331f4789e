// Random numbers on the device: the draws of tensor/philox.h, one thread a number, so the same as the CPU's.
#include "cuda/grid.cuh"
#include "tensor/dispatch.h"
#include "tensor/philox.h"

namespace addp::kernel {
namespace {

constexpr int kThreads = 256;
constexpr int kPieces = 4;  // 16-byte pieces of a group of `dropout` that a thread handles with one draw

template <class T>
__global__ void __launch_bounds__(kThreads)
    random_uniform_kernel(T* y, int64_t n, uint64_t seed, uint64_t stream, uint64_t position, const uint64_t* salt) {
  ADDP_MAX_THREADS(kThreads);
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  // Rounded to float the largest draws would be 1.
  constexpr T kBelowOne = static_cast<T>(sizeof(T) == 4 ? 1 - 0x1.0p-24 : 1 - 0x1.0p-53);
  const T u = static_cast<T>(philox_uniform(seed, stream ^ *salt, position + i));
  y[i] = u < kBelowOne ? u : kBelowOne;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    random_normal_kernel(T* y, int64_t n, uint64_t seed, uint64_t stream, uint64_t position, const uint64_t* salt) {
  ADDP_MAX_THREADS(kThreads);
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) y[i] = static_cast<T>(philox_normal(seed, stream ^ *salt, position + i));
}

// A draw for each element.
template <class T>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(T* y, const T* x, int64_t n, double p, T scale, uint64_t seed, uint64_t stream, uint64_t position,
                   const uint64_t* salt) {
  ADDP_MAX_THREADS(kThreads);
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) y[i] = philox_uniform(seed, stream ^ *salt, position + i) < p ? T(0) : x[i] * scale;
}

// A draw for each group, which is cut into `parts` blocks of kThreads * kPieces pieces; a piece is W elements.
template <class T, int W>
__global__ void __launch_bounds__(kThreads)
    dropout_groups_kernel(T* y, const T* x, int64_t group, int64_t parts, double p, T scale, uint64_t seed,
                          uint64_t stream, uint64_t position, const uint64_t* salt) {
  ADDP_MAX_THREADS(kThreads);
  const int64_t g = blockIdx.x / parts, part = blockIdx.x % parts;
  const bool dropped = philox_uniform(seed, stream ^ *salt, position + g) < p;
  for (int i = 0; i < kPieces; ++i) {
    const int64_t at = ((part * kPieces + i) * kThreads + threadIdx.x) * W;
    if (at >= group) return;
    Pack<T, W> piece{};
    if (!dropped) piece = load(x + g * group + at, Width<W>{});
    for (int e = 0; e < W; ++e) piece[e] *= scale;
    store(y + g * group + at, piece);
  }
}

template <class T, int W>
void dropout_groups(Cuda dev, T* y, const T* x, int64_t n, int64_t group, double p, T scale, uint64_t seed,
                    uint64_t stream, uint64_t position) {
  const int64_t parts = ceil_div(group, kThreads * kPieces * W), groups = n / group;
  if (groups == 0) return;
  launch(dropout_groups_kernel<T, W>, {grid_of(groups * parts), kThreads, 0, dev.stream}, y, x, group, parts, p, scale,
         seed, stream, position, random_salt(dev));
}

}  // namespace

template <class T>
void random_uniform(Cuda dev, T* y, int64_t n, uint64_t seed, uint64_t stream, uint64_t position) {
  if (n == 0) return;
  launch(random_uniform_kernel<T>, {grid_of(ceil_div(n, kThreads)), kThreads, 0, dev.stream}, y, n, seed, stream,
         position, random_salt(dev));
}

template <class T>
void random_normal(Cuda dev, T* y, int64_t n, uint64_t seed, uint64_t stream, uint64_t position) {
  if (n == 0) return;
  launch(random_normal_kernel<T>, {grid_of(ceil_div(n, kThreads)), kThreads, 0, dev.stream}, y, n, seed, stream,
         position, random_salt(dev));
}

template <class T>
void dropout(Cuda dev, T* y, const T* x, int64_t n, int64_t group, double p, uint64_t seed, uint64_t stream,
             uint64_t position) {
  if (n == 0) return;
  const T scale = static_cast<T>(p < 1 ? 1 / (1 - p) : 0);
  if (group > 1 && group % kPack<T> == 0 && aligned(x, y)) {
    return dropout_groups<T, kPack<T>>(dev, y, x, n, group, p, scale, seed, stream, position);
  }
  if (group > 1) return dropout_groups<T, 1>(dev, y, x, n, group, p, scale, seed, stream, position);
  launch(dropout_kernel<T>, {grid_of(ceil_div(n, kThreads)), kThreads, 0, dev.stream}, y, x, n, p, scale, seed, stream,
         position, random_salt(dev));
}

#define INSTANTIATE(T)                                                           \
  template void random_uniform(Cuda, T*, int64_t, uint64_t, uint64_t, uint64_t); \
  template void random_normal(Cuda, T*, int64_t, uint64_t, uint64_t, uint64_t);  \
  template void dropout(Cuda, T*, const T*, int64_t, int64_t, double, uint64_t, uint64_t, uint64_t);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
