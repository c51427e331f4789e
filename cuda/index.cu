// Rows by index on the device: gather and its backward, which adds rows up in a fixed order without atomics.
#include "cuda/reduce.cuh"

namespace addp::kernel {
namespace {

template <class T>
__global__ __launch_bounds__(kBlock, kResident) void gather_rows_kernel(T* y, const T* x, const int64_t* index,
                                                                        int64_t rows, int64_t N, int64_t M, int64_t D,
                                                                        bool shared, bool packed, int* fault) {
  ADDP_MAX_THREADS(kBlock);
  for_packs<T>(rows * D, packed, thread_index(), thread_count(), [&]<int W>(int64_t at, Width<W> width) {
    const int64_t row = at / D, i = index[row];
    Pack<T, W> v{};
    if (i >= 0 && i < N) {
      v = load(x + ((shared ? 0 : row / M * N) + i) * D + at % D, width);
    } else {
      atomicMax(fault, 1);
    }
    store(y + at, v);
  });
}

constexpr int kStaged = 1024;  // indices in shared memory at a time
constexpr int kSlab = 8;       // columns of a lane

// A warp owns one row of dx, kSlab * kWarp columns of it, and looks for its rows of dy among all indices of the table,
// which the block's warps read together. Lane l looks at one index in 32; what any lane finds, all add up.
template <class T>
__global__ __launch_bounds__(kBlock, kResident) void scatter_rows_kernel(T* dx, const T* dy, const int64_t* index,
                                                                         int64_t tables, int64_t N, int64_t rows,
                                                                         int64_t D) {
  ADDP_MAX_THREADS(kBlock);
  ADDP_SHARED(int64_t, staged, [kStaged]);
  constexpr int kWarps = kBlock / kWarp, kColumns = kSlab * kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t slabs = ceil_div(D, kColumns), parts = ceil_div(N, kWarps);
  for (int64_t task = blockIdx.x; task < tables * parts * slabs; task += gridDim.x) {
    const int64_t table = task / (parts * slabs), mine = task / slabs % parts * kWarps + warp;
    const int64_t column = task % slabs * kColumns + lane;
    T total[kSlab] = {};
    for (int64_t first = 0; first < rows; first += kStaged) {
      const int count = static_cast<int>(rows - first < kStaged ? rows - first : kStaged);
      for (int k = static_cast<int>(threadIdx.x); k < count; k += kBlock) staged[k] = index[table * rows + first + k];
      __syncthreads();
      for (int k = 0; k < count; k += kWarp) {
        unsigned found = __ballot_sync(kAllLanes, k + lane < count && staged[k + lane] == mine);
        while (found != 0) {
          const int64_t row = table * rows + first + k + __ffs(static_cast<int>(found)) - 1;
          found &= found - 1;
          for (int s = 0; s < kSlab; ++s) {
            if (column + s * kWarp < D) total[s] += dy[row * D + column + s * kWarp];
          }
        }
      }
      __syncthreads();
    }
    for (int s = 0; s < kSlab; ++s) {
      if (mine < N && column + s * kWarp < D) dx[(table * N + mine) * D + column + s * kWarp] = total[s];
    }
  }
}

}  // namespace

template <class T>
void gather_rows_fwd(Cuda dev, T* y, const T* x, const int64_t* index, int64_t B, int64_t N, int64_t M, int64_t D,
                     bool shared) {
  const int64_t n = B * M * D;
  if (n == 0) return;
  const bool packed = D % kPack<T> == 0 && aligned(y, x);
  launch(gather_rows_kernel<T>, pack_dims<T>(dev, n, packed), y, x, index, B * M, N, M, D, shared, packed,
         index_fault(dev));
}

template <class T>
void gather_rows_bwd(Cuda dev, T* dx, const T* dy, const int64_t* index, int64_t B, int64_t N, int64_t M, int64_t D,
                     bool shared) {
  const int64_t tables = shared ? 1 : B, rows = shared ? B * M : M;
  if (tables * N * D == 0) return;
  const int64_t tasks = tables * ceil_div(N, kBlock / kWarp) * ceil_div(D, kSlab * kWarp);
  launch(scatter_rows_kernel<T>, Dims{grid_for(tasks, 1), dim3(kBlock), 0, stream_of(dev)}, dx, dy, index, tables, N,
         rows, D);
}

#define ADDP_INSTANTIATE(T)                                                                                    \
  template void gather_rows_fwd(Cuda, T*, const T*, const int64_t*, int64_t, int64_t, int64_t, int64_t, bool); \
  template void gather_rows_bwd(Cuda, T*, const T*, const int64_t*, int64_t, int64_t, int64_t, int64_t, bool);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
