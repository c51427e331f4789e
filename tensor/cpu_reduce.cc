// Reductions on the CPU: sums over an axis and their backward, sum of squares, argmax. Sums are accumulated in double,
// in chunks whose size depends on the shape only.
#include <algorithm>
#include <memory>
#include <vector>

#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {

using cpu::kGrain;

namespace {

// total[i] += sum over r < rows of x[r * stride + i], i < n. Rows enter four at a time, which halves the traffic to
// `total`.
template <class T>
void add_rows(double* total, const T* x, int64_t rows, int64_t n, int64_t stride) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const T *x0 = x + r * stride, *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride;
    for (int64_t i = 0; i < n; ++i) {
      total[i] += (double(x0[i]) + double(x1[i])) + (double(x2[i]) + double(x3[i]));
    }
  }
  for (; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) total[i] += double(x[r * stride + i]);
  }
}

// y[i] = scale * sum over r < rows of x[r * stride + i], i < n.
template <class T, class From>
void sum_columns(T* y, const From* x, int64_t rows, int64_t n, int64_t stride, double scale) {
  constexpr int64_t kBlock = 256;
  double total[kBlock];
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t count = std::min(kBlock, n - first);
    std::fill_n(total, count, 0.0);
    add_rows(total, x + first, rows, count, stride);
    for (int64_t i = 0; i < count; ++i) y[first + i] = static_cast<T>(scale * total[i]);
  }
}

// Sums over contiguous rows of n.
template <class T>
void sum_rows(T* y, const T* x, int64_t outer, int64_t n, double scale) {
  if (n <= kGrain) {
    parallel_ranges(outer, cpu::row_grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) y[o] = static_cast<T>(scale * cpu::sum_double(x + o * n, n));
    });
    return;
  }
  const int64_t chunks = (n + kGrain - 1) / kGrain;
  std::vector<double> partial(outer * chunks);
  parallel_for(outer * chunks, [&](int64_t task) {
    const int64_t o = task / chunks, begin = task % chunks * kGrain;
    partial[task] = cpu::sum_double(x + o * n + begin, std::min(kGrain, n - begin));
  });
  for (int64_t o = 0; o < outer; ++o) {
    y[o] = static_cast<T>(scale * cpu::sum_double(partial.data() + o * chunks, chunks));
  }
}

}  // namespace

template <class T>
void sum_axis(Cpu, T* y, const T* x, int64_t outer, int64_t n, int64_t inner, double scale) {
  if (inner == 1) return sum_rows(y, x, outer, n, scale);
  const int64_t grain = std::max<int64_t>(4, 4 * cpu::row_grain(inner)), chunks = (n + grain - 1) / grain;
  if (chunks <= 1) {
    parallel_ranges(outer, cpu::row_grain(n * inner), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) sum_columns(y + o * inner, x + o * n * inner, n, inner, inner, scale);
    });
    return;
  }
  const auto partial = std::make_unique_for_overwrite<double[]>(static_cast<size_t>(outer * chunks * inner));
  parallel_for(outer * chunks, [&](int64_t task) {
    const int64_t o = task / chunks, begin = task % chunks * grain, end = std::min(n, begin + grain);
    double* sum = partial.get() + task * inner;
    std::fill_n(sum, inner, 0.0);
    add_rows(sum, x + (o * n + begin) * inner, end - begin, inner, inner);
  });
  for (int64_t o = 0; o < outer; ++o) {
    parallel_ranges(inner, std::max<int64_t>(256, cpu::row_grain(chunks)), [&](int64_t begin, int64_t end) {
      sum_columns(y + o * inner + begin, partial.get() + o * chunks * inner + begin, chunks, end - begin, inner, scale);
    });
  }
}

template <class T>
void broadcast_axis(Cpu, T* y, const T* x, int64_t outer, int64_t n, int64_t inner, double scale) {
  const T s = static_cast<T>(scale);
  if (inner == 1) {
    parallel_ranges(outer * n, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end;) {
        const int64_t o = i / n, stop = std::min(end, (o + 1) * n);
        std::fill(y + i, y + stop, s * x[o]);
        i = stop;
      }
    });
    return;
  }
  parallel_ranges(outer * n, cpu::row_grain(inner), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* from = x + row / n * inner;
      T* to = y + row * inner;
      for (int64_t i = 0; i < inner; ++i) to[i] = s * from[i];
    }
  });
}

template <class T>
void sum_squares(Cpu, double* result, const T* x, int64_t n) {
  std::vector<double> partial((n + kGrain - 1) / kGrain);
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    partial[begin / kGrain] = cpu::sum_double(x + begin, end - begin, [](cpu::VecD v) { return v * v; });
  });
  *result = cpu::sum_double(partial.data(), static_cast<int64_t>(partial.size()));
}

template <class T>
void argmax_rows(Cpu, int64_t* index, const T* x, int64_t N, int64_t D) {
  parallel_ranges(N, cpu::row_grain(D), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* row = x + r * D;
      cpu::Vec<T> best = cpu::splat<T>(row[0]);
      cpu::for_vectors<T>(D, [&](int64_t i, auto lanes) {
        const cpu::Vec<T> v = cpu::keep<T>(cpu::load<T>(row + i, lanes), lanes, row[0]);
        best = v > best ? v : best;
      });
      const T* found = std::find(row, row + D, cpu::max_lanes<T>(best));
      index[r] = found == row + D ? 0 : found - row;  // not found: NaN
    }
  });
}

#define ADDP_INSTANTIATE(T)                                                           \
  template void sum_axis(Cpu, T*, const T*, int64_t, int64_t, int64_t, double);       \
  template void broadcast_axis(Cpu, T*, const T*, int64_t, int64_t, int64_t, double); \
  template void sum_squares(Cpu, double*, const T*, int64_t);                         \
  template void argmax_rows(Cpu, int64_t*, const T*, int64_t, int64_t);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
