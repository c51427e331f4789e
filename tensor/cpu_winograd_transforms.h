// The transforms of Winograd's F(4x4, 3x3) and F(4x4, 2x2), for cpu_winograd.cc (forward) and cpu_winograd_bwd.cc
// (gradient of the weights). With d a 6 x 6 (5 x 5) patch of the input and g the kernel, a 4 x 4 tile of the output is
//   y = A' [ (G g G') * (B' d B) ] A      (' transposes, * is elementwise and sums over input channels)
// so each of the 36 (25) frequencies is a matrix product [Co, Ci] x [Ci, tiles]. Its gradient with respect to g is
//   dg = G' [ (B' d B) * (A dy A') ] G    (summed over tiles)
// again as many products, [Ci, tiles] x [tiles, Co].
#pragma once
#include <algorithm>

#include "tensor/cpu_tile.h"
#include "tensor/dispatch.h"

namespace addp::cpu {

inline constexpr int kOut = 4;
template <int taps>  // of the kernel along an axis, 2 or 3
inline constexpr int kIn = kOut + taps - 1;
template <int taps>
inline constexpr int kFrequencies = kIn<taps>* kIn<taps>;

// How far apart frequencies of `size` elements lie: a cache line more than a multiple of many, so that a transform does
// not write all of them to the same few places of the first-level cache.
template <class T>
inline int64_t frequency_step(int64_t size) {
  return size + kRegisterLanes<T>;
}

// The five transforms along one axis. V is a vector of tiles or channels.
template <int taps>
struct InputTransform;  // B' d
template <int taps>
struct OutputTransform;  // A' m
template <int taps>
struct GradientTransform;  // A dy
template <int taps>
struct WeightTransform;  // G g
template <int taps>
struct WeightGradientTransform;  // G' u

// Three taps; the points are 0, 1, -1, 2, -2 and infinity.
template <>
struct InputTransform<3> {
  static constexpr int from = 6, to = 6;
  template <class V>
  static void axis(V (&to)[6], const V (&d)[6]) {
    const V even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
    const V even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
    to[0] = 4 * d[0] - 5 * d[2] + d[4];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = even2 + odd2;
    to[4] = even2 - odd2;
    to[5] = 4 * d[1] - 5 * d[3] + d[5];
  }
};

template <>
struct OutputTransform<3> {
  static constexpr int from = 6, to = kOut;
  template <class V>
  static void axis(V (&to)[kOut], const V (&m)[6]) {
    const V sum = m[1] + m[2], difference = m[1] - m[2], sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    to[0] = m[0] + sum + sum2;
    to[1] = difference + 2 * difference2;
    to[2] = sum + 4 * sum2;
    to[3] = difference + 8 * difference2 + m[5];
  }
};

template <>
struct GradientTransform<3> {
  static constexpr int from = kOut, to = 6;
  template <class V>
  static void axis(V (&to)[6], const V (&dy)[kOut]) {
    const V even = dy[0] + dy[2], odd = dy[1] + dy[3], even2 = dy[0] + 4 * dy[2], odd2 = 2 * dy[1] + 8 * dy[3];
    to[0] = dy[0];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = even2 + odd2;
    to[4] = even2 - odd2;
    to[5] = dy[3];
  }
};

template <>
struct WeightTransform<3> {
  static constexpr int from = 3, to = 6;
  template <class V, class T = std::remove_cvref_t<decltype(V{}[0])>>
  static void axis(V (&to)[6], const V (&g)[3]) {
    const V even = (g[0] + g[2]) * T(-1.0 / 6), odd = g[1] * T(-1.0 / 6);
    const V even2 = g[0] * T(1.0 / 24) + g[2] * T(1.0 / 6), odd2 = g[1] * T(1.0 / 12);
    to[0] = g[0] * T(0.25);
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = even2 + odd2;
    to[4] = even2 - odd2;
    to[5] = g[2];
  }
};

template <>
struct WeightGradientTransform<3> {
  static constexpr int from = 6, to = 3;
  template <class V, class T = std::remove_cvref_t<decltype(V{}[0])>>
  static void axis(V (&to)[3], const V (&u)[6]) {
    const V sum = (u[1] + u[2]) * T(-1.0 / 6), sum2 = u[3] + u[4];
    to[0] = u[0] * T(0.25) + sum + sum2 * T(1.0 / 24);
    to[1] = (u[2] - u[1]) * T(1.0 / 6) + (u[3] - u[4]) * T(1.0 / 12);
    to[2] = sum + sum2 * T(1.0 / 6) + u[5];
  }
};

// Two taps; the points are 0, 1, -1, 2 and infinity.
template <>
struct InputTransform<2> {
  static constexpr int from = 5, to = 5;
  template <class V>
  static void axis(V (&to)[5], const V (&d)[5]) {
    const V odd = d[3] - d[1];
    to[0] = 2 * (d[0] - d[2]) + odd;
    to[1] = odd - d[1] - d[2];
    to[2] = odd + 3 * (d[1] - d[2]);
    to[3] = odd;
    to[4] = d[4] - d[2] - 2 * odd;
  }
};

template <>
struct OutputTransform<2> {
  static constexpr int from = 5, to = kOut;
  template <class V>
  static void axis(V (&to)[kOut], const V (&m)[5]) {
    const V sum = m[1] + m[2], difference = m[1] - m[2];
    to[0] = m[0] + sum + m[3];
    to[1] = difference + 2 * m[3];
    to[2] = sum + 4 * m[3];
    to[3] = difference + 8 * m[3] + m[4];
  }
};

template <>
struct GradientTransform<2> {
  static constexpr int from = kOut, to = 5;
  template <class V>
  static void axis(V (&to)[5], const V (&dy)[kOut]) {
    const V even = dy[0] + dy[2], odd = dy[1] + dy[3];
    to[0] = dy[0];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = dy[0] + 4 * dy[2] + 2 * (dy[1] + 4 * dy[3]);
    to[4] = dy[3];
  }
};

template <>
struct WeightTransform<2> {
  static constexpr int from = 2, to = 5;
  template <class V, class T = std::remove_cvref_t<decltype(V{}[0])>>
  static void axis(V (&to)[5], const V (&g)[2]) {
    to[0] = g[0] * T(0.5);
    to[1] = (g[0] + g[1]) * T(-0.5);
    to[2] = (g[1] - g[0]) * T(1.0 / 6);
    to[3] = (g[0] + 2 * g[1]) * T(1.0 / 6);
    to[4] = g[1];
  }
};

template <>
struct WeightGradientTransform<2> {
  static constexpr int from = 5, to = 2;
  template <class V, class T = std::remove_cvref_t<decltype(V{}[0])>>
  static void axis(V (&to)[2], const V (&u)[5]) {
    to[0] = (u[0] - u[1]) * T(0.5) + (u[3] - u[2]) * T(1.0 / 6);
    to[1] = u[1] * T(-0.5) + u[2] * T(1.0 / 6) + u[3] * T(1.0 / 3) + u[4];
  }
};

// Both axes: get(r, c) gives an entry of the square patch, put(i, j, value) takes one of the square result.
template <class Transform, class V, class Get, class Put>
[[gnu::always_inline]] inline void transform(Get get, Put put) {
  constexpr int N = Transform::from, M = Transform::to;
  V half[M][N];
#pragma GCC unroll 6
  for (int c = 0; c < N; ++c) {
    V from[N], to[M];
#pragma GCC unroll 6
    for (int r = 0; r < N; ++r) from[r] = get(r, c);
    Transform::axis(to, from);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) half[i][c] = to[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i) {
    V to[M];
    Transform::axis(to, half[i]);
#pragma GCC unroll 6
    for (int j = 0; j < M; ++j) put(i, j, to[j]);
  }
}

// to[f * apart + c * kPanelRows + i] = frequency f of G g G', g the kernel of row i and channel c: its entry (r, k)
// lies at weight[i * row_step + c * channel_step + taps r + k], or with `flipped` in reversed order. rows <= kTileRows.
template <int taps, class T>
void transform_weight(T* to, int64_t apart, const T* weight, int64_t row_step, int64_t channel_step, bool flipped,
                      int64_t rows, int64_t channels) {
  constexpr int64_t n = kRegisterLanes<T>, size = taps * taps, whole = (size + n - 1) / n * n;
  T kernels[whole * kPanelRows<T>];  // [tap, row]
  for (int64_t c = 0; c < channels; ++c) {
    // In whole vectors where what lies behind the kernel can be read along.
    const int64_t columns = (channels - 1 - c) * channel_step + size >= whole ? whole : size;
    transpose<true>(kernels, kPanelRows<T>, weight + c * channel_step, row_step, rows, columns);
    for (int64_t i = 0; i < kPanelRows<T>; i += n) {
      transform<WeightTransform<taps>, Register<T>>(
          [&](int r, int k) {
            const int64_t tap = taps * r + k;
            return load_register(kernels + (flipped ? size - 1 - tap : tap) * kPanelRows<T> + i);
          },
          [&](int r, int k, Register<T> v) {
            store_register(to + (r * kIn<taps> + k) * apart + c * kPanelRows<T> + i, v);
          });
    }
  }
}

// Rows [first, first + rows) of an H x W image, each as `width` columns from -left on, with zeros outside.
template <class T>
inline void pad(T* to, int64_t rows, int64_t width, const T* image, int64_t H, int64_t W, int64_t first, int64_t left) {
  const int64_t n = std::min(W, width - left);
  std::fill_n(to, rows * width, T(0));
  for (int64_t y = std::max<int64_t>(first, 0); y < std::min(first + rows, H); ++y) {
    copy_short(to + (y - first) * width + left, image + y * W, n);
  }
}

}  // namespace addp::cpu
