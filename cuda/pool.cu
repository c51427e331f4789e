// Pooling over non-overlapping windows and nearest-neighbour upsampling on the device: each thread computes elements of
// the result, in the order of tensor/cpu_pool.cc, so the results are the same to the bit. Also the backward passes only
// read what they need; nothing is added up in memory.
#include "cuda/grid.cuh"
#include "tensor/dispatch.h"

namespace addp::kernel {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 1024;  // of the result, about, for each block

// How a result of `rows` rows (of all planes) and `width` columns is dealt out: whole rows to a block, so that one
// division in 32 bits finds an element's place.
struct Rows {
  int64_t rows;
  int height, width, block_rows;  // height: rows of a plane
};

// One element of the result.
struct Place {
  int64_t plane, index;  // index counts over all planes
  int row, column;
};

// The i-th element of this thread, if there is one.
__device__ inline bool find_place(Place& place, const Rows& rows, int i) {
  const int64_t first = int64_t{blockIdx.x} * rows.block_rows, left = rows.rows - first;
  const int count = static_cast<int>(left < rows.block_rows ? left : rows.block_rows) * rows.width;
  const int at = i * kThreads + static_cast<int>(threadIdx.x);
  if (at >= count) return false;
  const unsigned row = static_cast<unsigned>(first) + static_cast<unsigned>(at / rows.width);
  place.plane = row / static_cast<unsigned>(rows.height);
  place.row = static_cast<int>(row % static_cast<unsigned>(rows.height));
  place.column = at % rows.width;
  place.index = first * rows.width + at;
  return true;
}

// y = scale * sum of each k x k window of x [planes, H, W]
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_windows_kernel(T* y, const T* x, Rows rows, int H, int W, int k, T scale) {
  ADDP_MAX_THREADS(kThreads);
  Place at;
  for (int i = 0; find_place(at, rows, i); ++i) {
    const T* window = x + (at.plane * H + int64_t{at.row} * k) * W + int64_t{at.column} * k;
    T sum = 0;
    for (int r = 0; r < k; ++r) {
      for (int c = 0; c < k; ++c) sum += window[int64_t{r} * W + c];
    }
    y[at.index] = sum * scale;
  }
}

// The reverse: y[r, c] = scale * x[r / k, c / k], 0 where x [planes, H, W] has no such element.
template <class T>
__global__ void __launch_bounds__(kThreads)
    spread_windows_kernel(T* y, const T* x, Rows rows, int H, int W, int k, T scale) {
  ADDP_MAX_THREADS(kThreads);
  Place at;
  for (int i = 0; find_place(at, rows, i); ++i) {
    const int row = at.row / k, column = at.column / k;
    y[at.index] = row < H && column < W ? scale * x[(at.plane * H + row) * W + column] : T(0);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    max_pool_fwd_kernel(T* y, int64_t* argmax, const T* x, Rows rows, int H, int W, int k) {
  ADDP_MAX_THREADS(kThreads);
  Place at;
  for (int i = 0; find_place(at, rows, i); ++i) {
    const T* plane = x + at.plane * H * W;
    int64_t best = int64_t{at.row} * k * W + int64_t{at.column} * k;
    T highest = plane[best];
    for (int r = 0; r < k; ++r) {
      for (int c = 0; c < k; ++c) {
        const int64_t other = (int64_t{at.row} * k + r) * W + int64_t{at.column} * k + c;
        if (plane[other] > highest) best = other, highest = plane[other];
      }
    }
    y[at.index] = highest;
    argmax[at.index] = best;
  }
}

// dx [planes, H, W]: an element gets its window's gradient when it was the window's maximum.
template <class T>
__global__ void __launch_bounds__(kThreads)
    max_pool_bwd_kernel(T* dx, const T* dy, const int64_t* argmax, Rows rows, int Ho, int Wo, int k) {
  ADDP_MAX_THREADS(kThreads);
  Place at;
  for (int i = 0; find_place(at, rows, i); ++i) {
    const int row = at.row / k, column = at.column / k;
    T d = 0;
    if (row < Ho && column < Wo) {
      const int64_t window = (at.plane * Ho + row) * Wo + column;
      if (argmax[window] == int64_t{at.row} * rows.width + at.column) d = dy[window];
    }
    dx[at.index] = d;
  }
}

struct Deal {
  Rows rows;
  Dims dims;
};

// For a result of planes x height x width.
Deal deal(Cuda dev, int64_t planes, int64_t height, int64_t width) {
  constexpr int64_t kLimit = int64_t{1} << 30;
  check(planes * height < kLimit && width < kLimit, "pooling on the device: more than 2^30 rows or columns");
  const int64_t block_rows = width < kElements ? kElements / width : 1;
  return {{planes * height, static_cast<int>(height), static_cast<int>(width), static_cast<int>(block_rows)},
          {grid_of(ceil_div(planes * height, block_rows)), kThreads, 0, dev.stream}};
}

template <class T>
void sum_windows(Cuda dev, T* y, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k, T scale) {
  if (planes * (H / k) * (W / k) == 0) return;
  const Deal d = deal(dev, planes, H / k, W / k);
  launch(sum_windows_kernel<T>, d.dims, y, x, d.rows, static_cast<int>(H), static_cast<int>(W), static_cast<int>(k),
         scale);
}

// y: [planes, H, W] from x: [planes, Ho, Wo]
template <class T>
void spread_windows(Cuda dev, T* y, const T* x, int64_t planes, int64_t H, int64_t W, int64_t Ho, int64_t Wo, int64_t k,
                    T scale) {
  if (planes * H * W == 0) return;
  const Deal d = deal(dev, planes, H, W);
  launch(spread_windows_kernel<T>, d.dims, y, x, d.rows, static_cast<int>(Ho), static_cast<int>(Wo),
         static_cast<int>(k), scale);
}

}  // namespace

template <class T>
void avg_pool_fwd(Cuda dev, T* y, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k) {
  sum_windows(dev, y, x, planes, H, W, k, T(1) / static_cast<T>(k * k));
}

template <class T>
void avg_pool_bwd(Cuda dev, T* dx, const T* dy, int64_t planes, int64_t H, int64_t W, int64_t k) {
  spread_windows(dev, dx, dy, planes, H, W, H / k, W / k, k, T(1) / static_cast<T>(k * k));
}

template <class T>
void max_pool_fwd(Cuda dev, T* y, int64_t* argmax, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k) {
  if (planes * (H / k) * (W / k) == 0) return;
  const Deal d = deal(dev, planes, H / k, W / k);
  launch(max_pool_fwd_kernel<T>, d.dims, y, argmax, x, d.rows, static_cast<int>(H), static_cast<int>(W),
         static_cast<int>(k));
}

template <class T>
void max_pool_bwd(Cuda dev, T* dx, const T* dy, const int64_t* argmax, int64_t planes, int64_t H, int64_t W,
                  int64_t k) {
  if (planes * H * W == 0) return;
  const Deal d = deal(dev, planes, H, W);
  launch(max_pool_bwd_kernel<T>, d.dims, dx, dy, argmax, d.rows, static_cast<int>(H / k), static_cast<int>(W / k),
         static_cast<int>(k));
}

template <class T>
void upsample_fwd(Cuda dev, T* y, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k) {
  spread_windows(dev, y, x, planes, H * k, W * k, H, W, k, T(1));
}

template <class T>
void upsample_bwd(Cuda dev, T* dx, const T* dy, int64_t planes, int64_t H, int64_t W, int64_t k) {
  sum_windows(dev, dx, dy, planes, H * k, W * k, k, T(1));
}

#define INSTANTIATE(T)                                                                                \
  template void avg_pool_fwd(Cuda, T*, const T*, int64_t, int64_t, int64_t, int64_t);                 \
  template void avg_pool_bwd(Cuda, T*, const T*, int64_t, int64_t, int64_t, int64_t);                 \
  template void max_pool_fwd(Cuda, T*, int64_t*, const T*, int64_t, int64_t, int64_t, int64_t);       \
  template void max_pool_bwd(Cuda, T*, const T*, const int64_t*, int64_t, int64_t, int64_t, int64_t); \
  template void upsample_fwd(Cuda, T*, const T*, int64_t, int64_t, int64_t, int64_t);                 \
  template void upsample_bwd(Cuda, T*, const T*, int64_t, int64_t, int64_t, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
