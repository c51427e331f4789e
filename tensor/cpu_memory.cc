// Memory kernels on the CPU: fill, conversion, block copies (slice, concat), permutation, and the search for NaN and
// infinity.
#include <algorithm>
#include <cstring>
#include <vector>

#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {

using cpu::kGrain;

template <class T>
void fill(Cpu, T* y, int64_t n, double value) {
  parallel_ranges(n, 4 * kGrain,
                  [&](int64_t begin, int64_t end) { std::fill(y + begin, y + end, static_cast<T>(value)); });
}

template <class To, class From>
void convert(Cpu, To* y, const From* x, int64_t n) {
  parallel_ranges(n, 2 * kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<To>(x[i]);
  });
}

template <class T>
void copy_blocks(Cpu, T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t block, int64_t count) {
  if (block == 0) return;
  // Long blocks are split, short ones gathered into a task.
  const int64_t piece = std::min<int64_t>(block, 2 * kGrain), pieces = (block + piece - 1) / piece;
  parallel_ranges(count * pieces, std::max<int64_t>(1, 2 * kGrain / piece), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / pieces, at = task % pieces * piece;
      std::memcpy(y + i * y_stride + at, x + i * x_stride + at, std::min(piece, block - at) * sizeof(T));
    }
  });
}

namespace {

// One axis of the result of a permutation.
struct Axis {
  int64_t extent, x_stride, y_stride;
};

// The result's axes, without those of extent 1, and with those merged that also follow each other in x.
std::vector<Axis> result_axes(const Shape& shape, const std::vector<int>& order) {
  const int rank = static_cast<int>(shape.size());
  std::vector<int64_t> x_stride(rank, 1);
  for (int a = rank - 2; a >= 0; --a) x_stride[a] = x_stride[a + 1] * shape[a + 1];
  std::vector<Axis> axes;
  for (int a = 0; a < rank; ++a) {
    const int64_t extent = shape[order[a]], stride = x_stride[order[a]];
    if (extent == 1) continue;
    if (!axes.empty() && axes.back().x_stride == extent * stride) {
      axes.back() = {axes.back().extent * extent, stride, 0};
    } else {
      axes.push_back({extent, stride, 0});
    }
  }
  int64_t y_stride = 1;
  for (size_t a = axes.size(); a-- > 0; y_stride *= axes[a].extent) axes[a].y_stride = y_stride;
  return axes;
}

// Offsets in x and y of the `number`-th element of a grid.
void locate(const std::vector<Axis>& grid, int64_t number, int64_t& x_at, int64_t& y_at) {
  x_at = y_at = 0;
  for (size_t a = grid.size(); a-- > 0; number /= grid[a].extent) {
    const int64_t i = number % grid[a].extent;
    x_at += i * grid[a].x_stride;
    y_at += i * grid[a].y_stride;
  }
}

}  // namespace

template <class T>
void permute(Cpu, T* y, const T* x, const Shape& shape, const std::vector<int>& order) {
  const int64_t n = shape.numel();
  if (n == 0) return;
  std::vector<Axis> grid = result_axes(shape, order);
  if (grid.empty()) grid.push_back({1, 1, 1});
  const Axis last = grid.back();
  grid.pop_back();
  if (last.x_stride == 1) {  // runs are copied whole
    parallel_ranges(n / last.extent, cpu::row_grain(last.extent), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        int64_t x_at, y_at;
        locate(grid, i, x_at, y_at);
        std::copy(x + x_at, x + x_at + last.extent, y + y_at);
      }
    });
    return;
  }
  // Otherwise some other axis runs along x's memory: square tiles of that axis and the last one.
  const auto position = std::find_if(grid.begin(), grid.end(), [](const Axis& a) { return a.x_stride == 1; });
  const Axis along = *position;
  grid.erase(position);
  constexpr int64_t kTile = 32;
  const int64_t tiles = (along.extent + kTile - 1) / kTile;
  const int64_t tasks = n / last.extent / along.extent * tiles;
  parallel_ranges(tasks, std::max<int64_t>(1, kGrain * tasks / n), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      int64_t x_at, y_at;
      locate(grid, task / tiles, x_at, y_at);
      const int64_t i0 = task % tiles * kTile, i1 = std::min(along.extent, i0 + kTile);
      for (int64_t j0 = 0; j0 < last.extent; j0 += kTile) {
        const int64_t j1 = std::min(last.extent, j0 + kTile);
        for (int64_t i = i0; i < i1; ++i) {
          T* to = y + y_at + i * along.y_stride;
          const T* from = x + x_at + i;
          for (int64_t j = j0; j < j1; ++j) to[j] = from[j * last.x_stride];
        }
      }
    }
  });
}

template <class T>
void all_finite(Cpu, int64_t* flag, const T* x, int64_t n) {
  std::vector<char> finite((n + kGrain - 1) / kGrain, 1);
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    cpu::Vec<T> zero{};  // x * 0 is NaN for NaN and for infinity
    cpu::for_vectors<T>(end - begin, [&](int64_t i, auto lanes) { zero += cpu::load<T>(x + begin + i, lanes) * T(0); });
    finite[begin / kGrain] = cpu::sum_lanes<T>(zero) == 0;
  });
  *flag = std::all_of(finite.begin(), finite.end(), [](char f) { return f != 0; });
}

#define ADDP_INSTANTIATE(T)                                                         \
  template void fill(Cpu, T*, int64_t, double);                                     \
  template void convert(Cpu, T*, const float*, int64_t);                            \
  template void convert(Cpu, T*, const double*, int64_t);                           \
  template void convert(Cpu, T*, const int64_t*, int64_t);                          \
  template void convert(Cpu, T*, const uint8_t*, int64_t);                          \
  template void copy_blocks(Cpu, T*, int64_t, const T*, int64_t, int64_t, int64_t); \
  template void permute(Cpu, T*, const T*, const Shape&, const std::vector<int>&);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)
ADDP_INSTANTIATE(int64_t)
ADDP_INSTANTIATE(uint8_t)
template void all_finite(Cpu, int64_t*, const float*, int64_t);
template void all_finite(Cpu, int64_t*, const double*, int64_t);

}  // namespace addp::kernel
