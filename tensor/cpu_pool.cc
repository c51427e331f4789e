// Pooling over non-overlapping windows and nearest-neighbour upsampling, plane by plane.
#include <algorithm>
#include <type_traits>

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

// y[r, c] = scale * sum of the k x k window of x at (k r, k c). y: [rows, cols]; x has `width` columns. K: k as a
// constant, for which the compiler makes better code, or an integer.
template <class T, class K>
void sum_windows(T* y, const T* x, int64_t rows, int64_t cols, int64_t width, K k, T scale) {
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
template <class T, class K>
void spread_windows(T* y, const T* x, int64_t rows, int64_t cols, int64_t width, K k, T scale) {
  for (int64_t r = 0; r < rows; ++r) {
    T* to = y + r * k * width;
    for (int64_t c = 0; c < cols; ++c) {
      const T value = scale * x[r * cols + c];
      for (int64_t dr = 0; dr < k; ++dr) {
        for (int64_t dc = 0; dc < k; ++dc) to[dr * width + c * k + dc] = value;
      }
    }
  }
}

// f(k), with k = 2, the usual one, as a constant.
template <class F>
void with_window(int64_t k, F&& f) {
  if (k == 2) {
    f(std::integral_constant<int64_t, 2>());
  } else {
    f(k);
  }
}

}  // namespace

template <class T>
void avg_pool_fwd(Cpu, T* y, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k) {
  const int64_t Ho = H / k, Wo = W / k;
  with_window(k, [&](auto window) {
    for_planes(planes, H * W,
               [&](int64_t p) { sum_windows(y + p * Ho * Wo, x + p * H * W, Ho, Wo, W, window, T(1) / (k * k)); });
  });
}

template <class T>
void avg_pool_bwd(Cpu, T* dx, const T* dy, int64_t planes, int64_t H, int64_t W, int64_t k) {
  const int64_t Ho = H / k, Wo = W / k;
  with_window(k, [&](auto window) {
    for_planes(planes, H * W, [&](int64_t p) {
      if (H % k != 0 || W % k != 0) std::fill_n(dx + p * H * W, H * W, T(0));
      spread_windows(dx + p * H * W, dy + p * Ho * Wo, Ho, Wo, W, window, T(1) / (k * k));
    });
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
  with_window(k, [&](auto window) {
    for_planes(planes, H * W * k * k,
               [&](int64_t p) { spread_windows(y + p * H * W * k * k, x + p * H * W, H, W, W * k, window, T(1)); });
  });
}

template <class T>
void upsample_bwd(Cpu, T* dx, const T* dy, int64_t planes, int64_t H, int64_t W, int64_t k) {
  with_window(k, [&](auto window) {
    for_planes(planes, H * W * k * k,
               [&](int64_t p) { sum_windows(dx + p * H * W, dy + p * H * W * k * k, H, W, W * k, window, T(1)); });
  });
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
