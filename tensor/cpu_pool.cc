// Pooling over non-overlapping windows and nearest-neighbour upsampling, plane by plane.
#include <algorithm>

#include "tensor/cpu_pairs.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {
namespace {

// f(plane) for all planes, in tasks of about 16k elements.
template <class F>
void for_planes(int64_t planes, int64_t elements, F&& f) {
  parallel_ranges(planes, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, elements)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t plane = begin; plane < end; ++plane) f(plane);
                  });
}

// spread_windows and sum_windows with k = 2, the same sums in the same order.
template <class T>
void spread_pairs(T* y, const T* x, int64_t rows, int64_t cols, int64_t width, T scale) {
  using Pairs = cpu::Pairs<T>;
  for (int64_t r = 0; r < rows; ++r, x += cols, y += 2 * width) {
    int64_t c = 0;
    for (; c + Pairs::n <= cols; c += Pairs::n) {
      const auto v = Pairs::twice(Pairs::load(x + c) * scale);
      Pairs::store(y + 2 * c, v);
      Pairs::store(y + width + 2 * c, v);
    }
    for (; c < cols; ++c) y[2 * c] = y[2 * c + 1] = y[width + 2 * c] = y[width + 2 * c + 1] = x[c] * scale;
  }
}
template <class T>
void sum_pairs(T* y, const T* x, int64_t rows, int64_t cols, int64_t width, T scale) {
  using Pairs = cpu::Pairs<T>;
  for (int64_t r = 0; r < rows; ++r, y += cols, x += 2 * width) {
    int64_t c = 0;
    for (; c + Pairs::n <= cols; c += Pairs::n) {
      const auto above = Pairs::load_wide(x + 2 * c), below = Pairs::load_wide(x + width + 2 * c);
      Pairs::store(y + c,
                   (Pairs::first(above) + Pairs::second(above) + Pairs::first(below) + Pairs::second(below)) * scale);
    }
    for (; c < cols; ++c) y[c] = (x[2 * c] + x[2 * c + 1] + x[width + 2 * c] + x[width + 2 * c + 1]) * scale;
  }
}

// y[r, c] = scale * sum of the k x k window of x at (k r, k c). y: [rows, cols]; x has `width` columns.
template <class T>
void sum_windows(T* y, const T* x, int64_t rows, int64_t cols, int64_t width, int64_t k, T scale) {
  if (k == 2) return sum_pairs(y, x, rows, cols, width, scale);
  for (int64_t r = 0; r < rows; ++r, y += cols) {
    for (int64_t c = 0; c < cols; ++c) {
      T sum = 0;
      for (int64_t dr = 0; dr < k; ++dr) {
        for (int64_t dc = 0; dc < k; ++dc) sum += x[(r * k + dr) * width + c * k + dc];
      }
      y[c] = sum * scale;
    }
  }
}

// The reverse: y[r, c] = scale * x[r / k, c / k] for r < rows * k, c < cols * k. y has `width` columns.
template <class T>
void spread_windows(T* y, const T* x, int64_t rows, int64_t cols, int64_t width, int64_t k, T scale) {
  if (k == 2) return spread_pairs(y, x, rows, cols, width, scale);
  for (int64_t r = 0; r < rows; ++r) {
    T* to = y + r * k * width;
    for (int64_t c = 0; c < cols; ++c) {
      const T value = scale * x[r * cols + c];
      for (int64_t dr = 0; dr < k; ++dr) std::fill_n(to + dr * width + c * k, k, value);
    }
  }
}

}  // namespace

template <class T>
void avg_pool_fwd(Cpu, T* y, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k) {
  const int64_t Ho = H / k, Wo = W / k;
  for_planes(planes, H * W,
             [&](int64_t p) { sum_windows(y + p * Ho * Wo, x + p * H * W, Ho, Wo, W, k, T(1) / (k * k)); });
}

template <class T>
void avg_pool_bwd(Cpu, T* dx, const T* dy, int64_t planes, int64_t H, int64_t W, int64_t k) {
  const int64_t Ho = H / k, Wo = W / k;
  for_planes(planes, H * W, [&](int64_t p) {
    if (H % k != 0 || W % k != 0) std::fill_n(dx + p * H * W, H * W, T(0));
    spread_windows(dx + p * H * W, dy + p * Ho * Wo, Ho, Wo, W, k, T(1) / (k * k));
  });
}

template <class T>
void max_pool_fwd(Cpu, T* y, int64_t* argmax, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k) {
  const int64_t Ho = H / k, Wo = W / k;
  for_planes(planes, H * W, [&](int64_t p) {
    const T* plane = x + p * H * W;
    for (int64_t r = 0; r < Ho; ++r) {
      for (int64_t c = 0; c < Wo; ++c) {
        int64_t best = r * k * W + c * k;
        for (int64_t i = 0; i < k * k; ++i) {
          const int64_t at = (r * k + i / k) * W + c * k + i % k;
          if (plane[at] > plane[best]) best = at;
        }
        y[(p * Ho + r) * Wo + c] = plane[best];
        argmax[(p * Ho + r) * Wo + c] = best;
      }
    }
  });
}

template <class T>
void max_pool_bwd(Cpu, T* dx, const T* dy, const int64_t* argmax, int64_t planes, int64_t H, int64_t W, int64_t k) {
  const int64_t windows = (H / k) * (W / k);
  for_planes(planes, H * W, [&](int64_t p) {
    std::fill_n(dx + p * H * W, H * W, T(0));
    for (int64_t i = p * windows; i < (p + 1) * windows; ++i) dx[p * H * W + argmax[i]] = dy[i];
  });
}

template <class T>
void upsample_fwd(Cpu, T* y, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k) {
  for_planes(planes, H * W * k * k,
             [&](int64_t p) { spread_windows(y + p * H * W * k * k, x + p * H * W, H, W, W * k, k, T(1)); });
}

template <class T>
void upsample_bwd(Cpu, T* dx, const T* dy, int64_t planes, int64_t H, int64_t W, int64_t k) {
  for_planes(planes, H * W * k * k,
             [&](int64_t p) { sum_windows(dx + p * H * W, dy + p * H * W * k * k, H, W, W * k, k, T(1)); });
}

#define INSTANTIATE(T)                                                                               \
  template void avg_pool_fwd(Cpu, T*, const T*, int64_t, int64_t, int64_t, int64_t);                 \
  template void avg_pool_bwd(Cpu, T*, const T*, int64_t, int64_t, int64_t, int64_t);                 \
  template void max_pool_fwd(Cpu, T*, int64_t*, const T*, int64_t, int64_t, int64_t, int64_t);       \
  template void max_pool_bwd(Cpu, T*, const T*, const int64_t*, int64_t, int64_t, int64_t, int64_t); \
  template void upsample_fwd(Cpu, T*, const T*, int64_t, int64_t, int64_t, int64_t);                 \
  template void upsample_bwd(Cpu, T*, const T*, int64_t, int64_t, int64_t, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
