// The transforms of Winograd's F(4x4, 3x3), for cpu_winograd.cc (forward) and cpu_winograd_bwd.cc (gradient of the
// weights). With d a 6 x 6 patch of the input and g the 3 x 3 kernel, a 4 x 4 tile of the output is
//   y = A' [ (G g G') * (B' d B) ] A      (' transposes, * is elementwise and sums over input channels)
// so each of the 36 frequencies is a matrix product [Co, Ci] x [Ci, tiles]. Its gradient with respect to g is
//   dg = G' [ (B' d B) * (A dy A') ] G    (summed over tiles)
// again 36 products, [Ci, tiles] x [tiles, Co].
#pragma once
#include <algorithm>

#include "tensor/cpu_tile.h"
#include "tensor/dispatch.h"

namespace addp::cpu {

inline constexpr int kOut = 4, kIn = 6, kFrequencies = kIn * kIn;

// How far apart frequencies of `size` elements lie: a cache line more than a multiple of many, so that a transform does
// not write all of them to the same few places of the first-level cache.
template <class T>
inline int64_t frequency_step(int64_t size) {
  return size + kRegisterLanes<T>;
}

// The five transforms along one axis; the points are 0, 1, -1, 2, -2 and infinity. V is a vector of tiles or channels.
struct InputTransform {  // B' d
  static constexpr int from = kIn, to = kIn;
  template <class V>
  static void axis(V (&to)[kIn], const V (&d)[kIn]) {
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

struct OutputTransform {  // A' m
  static constexpr int from = kIn, to = kOut;
  template <class V>
  static void axis(V (&to)[kOut], const V (&m)[kIn]) {
    const V sum = m[1] + m[2], difference = m[1] - m[2], sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    to[0] = m[0] + sum + sum2;
    to[1] = difference + 2 * difference2;
    to[2] = sum + 4 * sum2;
    to[3] = difference + 8 * difference2 + m[5];
  }
};

struct GradientTransform {  // A dy
  static constexpr int from = kOut, to = kIn;
  template <class V>
  static void axis(V (&to)[kIn], const V (&dy)[kOut]) {
    const V even = dy[0] + dy[2], odd = dy[1] + dy[3], even2 = dy[0] + 4 * dy[2], odd2 = 2 * dy[1] + 8 * dy[3];
    to[0] = dy[0];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = even2 + odd2;
    to[4] = even2 - odd2;
    to[5] = dy[3];
  }
};

struct WeightTransform {  // G g
  static constexpr int from = 3, to = kIn;
  template <class V, class T = std::remove_cvref_t<decltype(V{}[0])>>
  static void axis(V (&to)[kIn], const V (&g)[3]) {
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

struct WeightGradientTransform {  // G' u
  static constexpr int from = kIn, to = 3;
  template <class V, class T = std::remove_cvref_t<decltype(V{}[0])>>
  static void axis(V (&to)[3], const V (&u)[kIn]) {
    const V sum = (u[1] + u[2]) * T(-1.0 / 6), sum2 = u[3] + u[4];
    to[0] = u[0] * T(0.25) + sum + sum2 * T(1.0 / 24);
    to[1] = (u[2] - u[1]) * T(1.0 / 6) + (u[3] - u[4]) * T(1.0 / 12);
    to[2] = sum + sum2 * T(1.0 / 6) + u[5];
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
// lies at weight[i * row_step + c * channel_step + 3 r + k], or with `flipped` at ... + 8 - 3 r - k. rows <= kTileRows.
template <class T>
void transform_weight(T* to, int64_t apart, const T* weight, int64_t row_step, int64_t channel_step, bool flipped,
                      int64_t rows, int64_t channels) {
  constexpr int64_t n = kRegisterLanes<T>, whole = (9 + n - 1) / n * n;
  T taps[whole * kPanelRows<T>];
  for (int64_t c = 0; c < channels; ++c) {
    // In whole vectors where what lies behind the kernel can be read along.
    transpose<true>(taps, kPanelRows<T>, weight + c * channel_step, row_step, rows, c + 1 < channels ? whole : 9);
    for (int64_t i = 0; i < kPanelRows<T>; i += n) {
      transform<WeightTransform, Register<T>>(
          [&](int r, int k) { return load_register(taps + (flipped ? 8 - 3 * r - k : 3 * r + k) * kPanelRows<T> + i); },
          [&](int r, int k, Register<T> v) { store_register(to + (r * kIn + k) * apart + c * kPanelRows<T> + i, v); });
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
