// Filling, converting, copying and reordering on the device: the kernels of tensor/cpu_memory.cc.
#include <cstring>

#include "cuda/context.h"
#include "cuda/device.h"

namespace addp::kernel {
namespace {

constexpr int kThreads = 256;

dim3 grid_for(int64_t n) {
  const int64_t blocks = (n + kThreads - 1) / kThreads;
  return dim3(static_cast<unsigned>(blocks < kGridBlocks ? blocks : kGridBlocks));
}

__device__ int64_t first_index() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ int64_t grid_size() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

bool is_aligned(const void* p, int64_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

template <class T>
constexpr int64_t kPerUnit = 16 / sizeof(T);  // elements in a uint4

// ---- Filling and converting

template <class T>
__global__ __launch_bounds__(kThreads) void fill_kernel(T* y, int64_t n, T value) {
  ADDP_MAX_THREADS(kThreads);
  for (int64_t i = first_index(); i < n; i += grid_size()) y[i] = value;
}

template <class To, class From>
__global__ __launch_bounds__(kThreads) void convert_kernel(To* y, const From* x, int64_t n) {
  ADDP_MAX_THREADS(kThreads);
  for (int64_t i = first_index(); i < n; i += grid_size()) y[i] = static_cast<To>(x[i]);
}

// ---- Copies with strides, in units of 16 bytes where everything is a multiple of that

template <class Unit>
__global__ __launch_bounds__(kThreads) void copy_blocks_kernel(Unit* y, int64_t y_stride, const Unit* x,
                                                               int64_t x_stride, int64_t block, int64_t count) {
  ADDP_MAX_THREADS(kThreads);
  for (int64_t i = first_index(); i < block * count; i += grid_size()) {
    const int64_t row = i / block, at = i % block;
    y[row * y_stride + at] = x[row * x_stride + at];
  }
}

// The axes of a permutation's result, the innermost first.
struct Axes {
  static constexpr int kMost = 6;
  int count;
  int64_t extent[kMost], x_stride[kMost];
};

// One thread an element of y, whose neighbours it writes beside it; reads are consecutive where the innermost axis
// stays. The loop is unrolled so that the axes are read where the launch put them, not from a copy in local memory.
template <class Unit>
__global__ __launch_bounds__(kThreads) void permute_kernel(Unit* y, const Unit* x, Axes axes, int64_t n) {
  ADDP_MAX_THREADS(kThreads);
  for (int64_t i = first_index(); i < n; i += grid_size()) {
    int64_t rest = i, at = 0;
#pragma unroll
    for (int a = 0; a < Axes::kMost; ++a) {
      if (a < axes.count) {
        at += rest % axes.extent[a] * axes.x_stride[a];
        rest /= axes.extent[a];
      }
    }
    y[i] = x[at];
  }
}

constexpr int kTile = 32, kTileRows = 8;

// `planes` matrices [rows, cols] of x become [cols, rows] in y, through a tile in shared memory, so that both sides are
// read and written along their rows. The column of padding keeps a column's elements in different banks.
template <class T>
__global__ __launch_bounds__(kTile* kTileRows) void transpose_kernel(T* y, const T* x, int64_t rows, int64_t cols,
                                                                     int64_t planes) {
  ADDP_MAX_THREADS(kTile * kTileRows);
  ADDP_SHARED(T, tile, [kTile][kTile + 1]);
  const int64_t row_tiles = (rows + kTile - 1) / kTile, col_tiles = (cols + kTile - 1) / kTile;
  const int tx = static_cast<int>(threadIdx.x), ty = static_cast<int>(threadIdx.y);
  for (int64_t task = blockIdx.x; task < planes * row_tiles * col_tiles; task += gridDim.x) {
    const int64_t plane = task / (row_tiles * col_tiles) * rows * cols;
    const int64_t row0 = task / col_tiles % row_tiles * kTile, col0 = task % col_tiles * kTile;
    for (int r = ty; r < kTile; r += kTileRows) {
      if (row0 + r < rows && col0 + tx < cols) tile[r][tx] = x[plane + (row0 + r) * cols + col0 + tx];
    }
    __syncthreads();
    for (int c = ty; c < kTile; c += kTileRows) {
      if (col0 + c < cols && row0 + tx < rows) y[plane + (col0 + c) * rows + row0 + tx] = tile[tx][c];
    }
    __syncthreads();
  }
}

template <class T>
__global__ __launch_bounds__(kThreads) void all_finite_kernel(int64_t* flag, const T* x, int64_t n) {
  ADDP_MAX_THREADS(kThreads);
  bool bad = false;
  for (int64_t i = first_index(); i < n; i += grid_size()) bad = bad || !(x[i] * T(0) == T(0));
  if (bad) atomicMin(reinterpret_cast<unsigned long long*>(flag), 0ull);
}

// The result's axes, without those of extent 1, and with those merged that also follow each other in x.
Axes result_axes(const Shape& shape, const std::vector<int>& order) {
  const int rank = static_cast<int>(shape.size());
  check(rank <= Axes::kMost, "permute: at most ", Axes::kMost, " axes, found ", shape);
  int64_t stride[Axes::kMost];
  for (int a = rank - 1; a >= 0; --a) stride[a] = a == rank - 1 ? 1 : stride[a + 1] * shape[a + 1];
  Axes axes{};
  for (int a = rank - 1; a >= 0; --a) {
    const int64_t extent = shape[order[a]], x_stride = stride[order[a]];
    if (extent == 1) continue;
    const int inner = axes.count - 1;
    if (inner >= 0 && x_stride == axes.extent[inner] * axes.x_stride[inner]) {
      axes.extent[inner] *= extent;
    } else {
      axes.extent[axes.count] = extent;
      axes.x_stride[axes.count++] = x_stride;
    }
  }
  if (axes.count == 0) axes = {1, {1}, {1}};
  return axes;
}

}  // namespace

template <class T>
void fill(Cuda dev, T* y, int64_t n, double value) {
  if (n == 0) return;
  const T v = static_cast<T>(value);
  if (is_aligned(y, 16) && n % kPerUnit<T> == 0) {
    uint4 pack;
    for (int64_t i = 0; i < kPerUnit<T>; ++i)
      std::memcpy(reinterpret_cast<char*>(&pack) + i * sizeof(T), &v, sizeof(T));
    const int64_t packs = n / kPerUnit<T>;
    return launch(fill_kernel<uint4>, Dims{grid_for(packs), dim3(kThreads), 0, dev.stream}, reinterpret_cast<uint4*>(y),
                  packs, pack);
  }
  launch(fill_kernel<T>, Dims{grid_for(n), dim3(kThreads), 0, dev.stream}, y, n, v);
}

template <class To, class From>
void convert(Cuda dev, To* y, const From* x, int64_t n) {
  if (n == 0) return;
  launch(convert_kernel<To, From>, Dims{grid_for(n), dim3(kThreads), 0, dev.stream}, y, x, n);
}

template <class T>
void copy_blocks(Cuda dev, T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t block, int64_t count) {
  if (block == 0 || count == 0) return;
  const Dims dims{grid_for(block * count), dim3(kThreads), 0, dev.stream};
  constexpr int64_t kCount = kPerUnit<T>;
  const bool whole = block % kCount == 0 && (count == 1 || (y_stride % kCount == 0 && x_stride % kCount == 0));
  if (!whole || !is_aligned(y, 16) || !is_aligned(x, 16)) {
    return launch(copy_blocks_kernel<T>, dims, y, y_stride, x, x_stride, block, count);
  }
  launch(copy_blocks_kernel<uint4>, Dims{grid_for(block / kCount * count), dim3(kThreads), 0, dev.stream},
         reinterpret_cast<uint4*>(y), y_stride / kCount, reinterpret_cast<const uint4*>(x), x_stride / kCount,
         block / kCount, count);
}

template <class T>
void permute(Cuda dev, T* y, const T* x, const Shape& shape, const std::vector<int>& order) {
  const int64_t n = shape.numel();
  if (n == 0) return;
  Axes axes = result_axes(shape, order);
  // A matrix transposed, or a row of them: the most common case, and the worst for plain copying.
  const bool planes = axes.count == 3 && axes.x_stride[2] == axes.extent[0] * axes.extent[1];
  if ((axes.count == 2 || planes) && axes.x_stride[1] == 1 && axes.x_stride[0] == axes.extent[1]) {
    const int64_t rows = axes.extent[0], cols = axes.extent[1], count = planes ? axes.extent[2] : 1;
    const int64_t tiles = count * ((rows + kTile - 1) / kTile) * ((cols + kTile - 1) / kTile);
    const auto blocks = static_cast<unsigned>(tiles < kGridBlocks ? tiles : kGridBlocks);
    return launch(transpose_kernel<T>, Dims{dim3(blocks), dim3(kTile, kTileRows), 0, dev.stream}, y, x, rows, cols,
                  count);
  }
  constexpr int64_t kCount = kPerUnit<T>;
  bool whole = axes.x_stride[0] == 1 && axes.extent[0] % kCount == 0 && is_aligned(y, 16) && is_aligned(x, 16);
  for (int a = 1; a < axes.count; ++a) whole = whole && axes.x_stride[a] % kCount == 0;
  if (!whole) {
    return launch(permute_kernel<T>, Dims{grid_for(n), dim3(kThreads), 0, dev.stream}, y, x, axes, n);
  }
  axes.extent[0] /= kCount;
  for (int a = 1; a < axes.count; ++a) axes.x_stride[a] /= kCount;
  launch(permute_kernel<uint4>, Dims{grid_for(n / kCount), dim3(kThreads), 0, dev.stream}, reinterpret_cast<uint4*>(y),
         reinterpret_cast<const uint4*>(x), axes, n / kCount);
}

template <class T>
void all_finite(Cuda dev, int64_t* flag, const T* x, int64_t n) {
  fill(dev, flag, 1, 1.0);
  if (n == 0) return;
  launch(all_finite_kernel<T>, Dims{grid_for(n), dim3(kThreads), 0, dev.stream}, flag, x, n);
}

#define ADDP_INSTANTIATE(T)                                                          \
  template void fill(Cuda, T*, int64_t, double);                                     \
  template void convert(Cuda, T*, const float*, int64_t);                            \
  template void convert(Cuda, T*, const double*, int64_t);                           \
  template void convert(Cuda, T*, const int64_t*, int64_t);                          \
  template void convert(Cuda, T*, const uint8_t*, int64_t);                          \
  template void copy_blocks(Cuda, T*, int64_t, const T*, int64_t, int64_t, int64_t); \
  template void permute(Cuda, T*, const T*, const Shape&, const std::vector<int>&);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)
ADDP_INSTANTIATE(int64_t)
ADDP_INSTANTIATE(uint8_t)
#undef ADDP_INSTANTIATE
template void all_finite(Cuda, int64_t*, const float*, int64_t);
template void all_finite(Cuda, int64_t*, const double*, int64_t);

}  // namespace addp::kernel
