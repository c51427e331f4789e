// With d a 6 x 6 patch of the input and g the 3 x 3 kernel, a 4 x 4 tile of the output is
//   y = A' [ (G g G') * (B' d B) ] A      (' transposes, * is elementwise and sums over input channels)
// so each of the 36 frequencies is a matrix product [Co, Ci] x [Ci, tiles]. Its gradient with respect to g is
//   dg = G' [ (B' d B) * (A dy A') ] G    (summed over tiles)
// again 36 products, [Ci, tiles] x [tiles, Co].
//
// The forward pass keeps one tile per vector lane. The input is dealt out by row and column modulo 4 into 16 planes
// [tile rows + 1, tile columns + 1]; entry (r, c) of the patches of consecutive tiles is then a run of plane
// (r % 4, c % 4), and no element is moved again. The tile that each row of planes has too many is computed and dropped.
// The gradient of the weights sums over tiles, so there a lane is a channel.
#include "tensor/cpu_winograd.h"

#include <algorithm>

#include "tensor/cpu_tile.h"
#include "tensor/parallel.h"

namespace addp::cpu {
namespace {

constexpr int kOut = 4, kIn = 6, kFrequencies = kIn * kIn;
constexpr int64_t kColumns = 96;                       // tiles a task of the forward pass, about
constexpr int64_t kTilesPerProduct = 64;               // length of a sum in the gradient of the weights, at least
constexpr int64_t kMinPartials = 4, kMaxPartials = 8;  // of the gradient of the weights ...
constexpr int64_t kPartialsSize = 1 << 19;             // ... and how many elements they have together, about
constexpr int64_t kMinPixels = 2048;                   // below, transforming the weights costs more than it saves
constexpr int64_t kMinSide = 12;                       // below, too many of the tiles are dropped
constexpr int64_t kMinChannels = 16, kMaxChannels = 256;

// ---- The three transforms along one axis; the points are 0, 1, -1, 2, -2 and infinity

template <class V>
inline void input_axis(V (&to)[kIn], const V (&d)[kIn]) {  // B' d
  const V even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
  const V even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
  to[0] = 4 * d[0] - 5 * d[2] + d[4];
  to[1] = even + odd;
  to[2] = even - odd;
  to[3] = even2 + odd2;
  to[4] = even2 - odd2;
  to[5] = 4 * d[1] - 5 * d[3] + d[5];
}

template <class V>
inline void output_axis(V (&to)[kOut], const V (&m)[kIn]) {  // A' m
  const V sum = m[1] + m[2], difference = m[1] - m[2], sum2 = m[3] + m[4], difference2 = m[3] - m[4];
  to[0] = m[0] + sum + sum2;
  to[1] = difference + 2 * difference2;
  to[2] = sum + 4 * sum2;
  to[3] = difference + 8 * difference2 + m[5];
}

template <class V>
inline void gradient_axis(V (&to)[kIn], const V (&dy)[kOut]) {  // A dy
  const V even = dy[0] + dy[2], odd = dy[1] + dy[3], even2 = dy[0] + 4 * dy[2], odd2 = 2 * dy[1] + 8 * dy[3];
  to[0] = dy[0];
  to[1] = even + odd;
  to[2] = even - odd;
  to[3] = even2 + odd2;
  to[4] = even2 - odd2;
  to[5] = dy[3];
}

template <class V, class T = std::remove_cvref_t<decltype(V{}[0])>>
inline void weight_axis(V (&to)[kIn], const V (&g)[3]) {  // G g
  const V even = (g[0] + g[2]) * T(-1.0 / 6), odd = g[1] * T(-1.0 / 6);
  const V even2 = g[0] * T(1.0 / 24) + g[2] * T(1.0 / 6), odd2 = g[1] * T(1.0 / 12);
  to[0] = g[0] * T(0.25);
  to[1] = even + odd;
  to[2] = even - odd;
  to[3] = even2 + odd2;
  to[4] = even2 - odd2;
  to[5] = g[2];
}

template <class V, class T = std::remove_cvref_t<decltype(V{}[0])>>
inline void weight_gradient_axis(V (&to)[3], const V (&u)[kIn]) {  // G' u
  const V sum = (u[1] + u[2]) * T(-1.0 / 6), sum2 = u[3] + u[4];
  to[0] = u[0] * T(0.25) + sum + sum2 * T(1.0 / 24);
  to[1] = (u[2] - u[1]) * T(1.0 / 6) + (u[3] - u[4]) * T(1.0 / 12);
  to[2] = sum + sum2 * T(1.0 / 6) + u[5];
}

// Both axes: get(r, c) gives an entry of the N x N patch, put(i, j, value) takes one of the M x M result.
template <class V, int M, int N, class Axis, class Get, class Put>
inline void transform(Axis axis, Get get, Put put) {
  V half[M][N];
#pragma GCC unroll 6
  for (int c = 0; c < N; ++c) {
    V from[N], to[M];
#pragma GCC unroll 6
    for (int r = 0; r < N; ++r) from[r] = get(r, c);
    axis(to, from);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) half[i][c] = to[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i) {
    V to[M];
    axis(to, half[i]);
#pragma GCC unroll 6
    for (int j = 0; j < M; ++j) put(i, j, to[j]);
  }
}

// ---- Between rows of pixels and planes of every fourth pixel

template <class T>
struct Quad {
  typedef T Type __attribute__((vector_size(4 * sizeof(T))));
  static Type load(const T* p) {
    Type v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
};

// The 4 x 4 matrix with these rows, transposed in place.
template <class Q>
inline void transpose_quads(Q (&q)[4]) {
  const Q low01 = __builtin_shufflevector(q[0], q[1], 0, 4, 1, 5),
          high01 = __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7);
  const Q low23 = __builtin_shufflevector(q[2], q[3], 0, 4, 1, 5),
          high23 = __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7);
  q[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
  q[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
  q[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
  q[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

// Plane c gets from[4 j + c] for j < count, rounded up to a multiple of 4.
template <class T>
void deal_out(T* planes, int64_t plane_size, const T* from, int64_t count) {
  for (int64_t j = 0; j < count; j += 4) {
    typename Quad<T>::Type q[4];
    for (int c = 0; c < 4; ++c) q[c] = Quad<T>::load(from + 4 * j + 4 * c);
    transpose_quads(q);
    for (int c = 0; c < 4; ++c) std::memcpy(planes + c * plane_size + j, &q[c], sizeof q[c]);
  }
}

// to[4 j + c] = plane c [j] for the first `count` elements of `to`.
template <class T>
void collect(T* to, int64_t count, const T* planes, int64_t plane_size) {
  for (int64_t j = 0; 4 * j < count; j += 4) {
    typename Quad<T>::Type q[4];
    for (int c = 0; c < 4; ++c) q[c] = Quad<T>::load(planes + c * plane_size + j);
    transpose_quads(q);
    if (4 * j + 16 <= count) {
      for (int i = 0; i < 4; ++i) std::memcpy(to + 4 * (j + i), &q[i], sizeof q[i]);
    } else {
      std::memcpy(to + 4 * j, q, static_cast<size_t>(count - 4 * j) * sizeof(T));
    }
  }
}

// Rows [first, first + rows) of an H x W image, each as `width` columns from -left on, with zeros outside.
template <class T>
void pad(T* to, int64_t rows, int64_t width, const T* image, int64_t H, int64_t W, int64_t first, int64_t left) {
  const int64_t n = std::min(W, width - left);
  std::fill_n(to, rows * width, T(0));
  for (int64_t y = std::max<int64_t>(first, 0); y < std::min(first + rows, H); ++y) {
    copy_short(to + (y - first) * width + left, image + y * W, n);
  }
}

// ---- Forward

// The part of the output that a task computes: some whole images, or some rows of tiles of one image.
struct Tiling {
  int64_t height, width, part;  // tiles of an image; columns of a plane
  int64_t groups, bands;        // of images; of tile rows

  explicit Tiling(const ConvShape& s)
      : height(ceil_div(s.Ho, kOut)), width(ceil_div(s.Wo, kOut)), part(width + 1), groups(s.B), bands(1) {
    const int64_t image = (height + 1) * part;
    if (image <= kColumns) {
      groups = ceil_div(s.B, std::clamp<int64_t>(kColumns / image, 1, std::max<int64_t>(1, s.B / 4)));
    } else {
      bands = ceil_div(height, std::clamp<int64_t>(kColumns / part, 1, height));
    }
  }
};

// G g G' of all kernels, packed for the register tile: [frequency, tile of rows, Ci, kPanelRows].
template <class T>
struct TransformedWeight {
  T* data;
  int64_t rows, channels, tiles;

  TransformedWeight(int64_t rows, int64_t channels) : rows(rows), channels(channels), tiles(ceil_div(rows, kTileRows)) {
    data = scratch<T>(Slot::shared, kFrequencies * tiles * channels * kPanelRows<T>);
  }
  Part tile(int64_t t) const { return Part(rows, tiles, t); }
  T* at(int64_t frequency, int64_t t) const { return data + (frequency * tiles + t) * channels * kPanelRows<T>; }

  void fill(const T* weight, int64_t row_step, int64_t channel_step, bool flipped) const {
    parallel_for(tiles * ceil_div(channels, 16), [&](int64_t task) {
      const int64_t t = task % tiles, begin = task / tiles * 16, end = std::min(channels, begin + 16);
      const Part part = tile(t);
      alignas(kVectorBytes) T taps[9][kPanelRows<T>] = {};
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t i = 0; i < part.size; ++i) {
          const T* from = weight + (part.begin + i) * row_step + c * channel_step;
          for (int tap = 0; tap < 9; ++tap) taps[tap][i] = from[flipped ? 8 - tap : tap];
        }
        for (int64_t i = 0; i < kPanelRows<T>; i += kRegisterLanes<T>) {
          transform_kernel([&](int r, int k) { return load_register(&taps[3 * r + k][i]); },
                           [&](int f, Register<T> v) { store_register(at(f, t) + c * kPanelRows<T> + i, v); });
        }
      }
    });
  }

 private:
  template <class Get, class Put>
  static void transform_kernel(Get get, Put put) {
    Register<T> half[kIn][3];
    for (int k = 0; k < 3; ++k) {
      const Register<T> from[3] = {get(0, k), get(1, k), get(2, k)};
      Register<T> to[kIn];
      weight_axis(to, from);
      for (int i = 0; i < kIn; ++i) half[i][k] = to[i];
    }
    for (int i = 0; i < kIn; ++i) {
      Register<T> to[kIn];
      weight_axis(to, half[i]);
      for (int j = 0; j < kIn; ++j) put(i * kIn + j, to[j]);
    }
  }
};

// One task of the forward pass.
template <class T>
struct Block {
  static constexpr int64_t n = kRegisterLanes<T>;

  const ConvShape& s;
  const Tiling& tiling;
  Part images, rows;                                                              // rows of tiles
  int64_t part = tiling.part, step = (rows.size + 1) * part;                      // columns; places of an image
  int64_t places = ceil_div((images.size - 1) * step + rows.size * part, n) * n;  // in whole vectors
  int64_t plane_size = images.size * step + part + 2 * n;                         // with what the last vector reads
  int64_t panels = ceil_div(places, kPanelCols<T>);

  int64_t input_rows() const { return kOut * (rows.size + 1); }
  int64_t padded_size() const { return images.size * input_rows() * kOut * part + 16; }

  // patches [frequency, panel, Ci, kPanelCols] = B' d B.
  void transform_input(T* patches, const T* x, T* padded, T* planes) const {
    std::fill_n(planes, 16 * plane_size, T(0));
    std::fill_n(padded + padded_size() - 16, 16, T(0));
    const int64_t width = kOut * part, count = input_rows();
    for (int64_t c = 0; c < s.Ci; ++c) {
      for (int64_t b = 0; b < images.size; ++b) {
        pad(padded + b * count * width, count, width, x + ((images.begin + b) * s.Ci + c) * s.Hi * s.Wi, s.Hi, s.Wi,
            kOut * rows.begin - s.pad_top, s.pad_left);
      }
      // Upwards, for each row's end is overwritten by the next row's beginning.
      for (int64_t r = 0; r < 4; ++r) {
        for (int64_t row = 0; row < images.size * (rows.size + 1); ++row) {
          deal_out(planes + 4 * r * plane_size + row * part, plane_size, padded + (4 * row + r) * width, part);
        }
      }
      for (int64_t q = 0; q < places; q += n) {
        T* to = patches + (q / kPanelCols<T> * s.Ci + c) * kPanelCols<T> + q % kPanelCols<T>;
        const int64_t frequency_step = panels * s.Ci * kPanelCols<T>;
        transform<Register<T>, kIn, kIn>(
            [](auto& v, const auto& d) { input_axis(v, d); },
            [&](int r, int k) {
              return load_register(planes + (r % 4 * 4 + k % 4) * plane_size + q + r / 4 * part + k / 4);
            },
            [&](int i, int j, Register<T> v) { store_register(to + (i * kIn + j) * frequency_step, v); });
      }
    }
  }

  // y = A' m A + bias for one output channel; m is [frequency] planes `frequency_step` apart.
  void transform_output(T* y, int64_t channel, const T* m, int64_t frequency_step, T bias, T* planes) const {
    const Register<T> shift = bias - Register<T>{};
    for (int64_t q = 0; q < places; q += n) {
      Register<T> half[kOut][kIn];
#pragma GCC unroll 6
      for (int j = 0; j < kIn; ++j) {
        Register<T> from[kIn], to[kOut];
#pragma GCC unroll 6
        for (int i = 0; i < kIn; ++i) from[i] = load_register(m + (i * kIn + j) * frequency_step + q);
        output_axis(to, from);
#pragma GCC unroll 4
        for (int i = 0; i < kOut; ++i) half[i][j] = to[i];
      }
#pragma GCC unroll 4
      for (int i = 0; i < kOut; ++i) {
        Register<T> to[kOut];
        output_axis(to, half[i]);
#pragma GCC unroll 4
        for (int j = 0; j < kOut; ++j) store_register(planes + (4 * i + j) * plane_size + q, to[j] + shift);
      }
    }
    for (int64_t b = 0; b < images.size; ++b) {
      T* image = y + ((images.begin + b) * s.Co + channel) * s.Ho * s.Wo;
      for (int64_t row = 0; row < rows.size; ++row) {
        const int64_t first = kOut * (rows.begin + row);
        for (int64_t i = 0; i < std::min<int64_t>(kOut, s.Ho - first); ++i) {
          collect(image + (first + i) * s.Wo, s.Wo, planes + 4 * i * plane_size + b * step + row * part, plane_size);
        }
      }
    }
  }

  // Tiles [begin, end) of the output channels.
  void run(T* y, const T* x, const TransformedWeight<T>& weight, const T* bias, Part tiles) const {
    const int64_t columns = panels * kPanelCols<T>, patch_size = kFrequencies * columns * s.Ci;
    const int64_t product_size = kFrequencies * kTileRows * columns;
    T* patches = scratch<T>(Slot::task, patch_size + product_size + 16 * plane_size + padded_size());
    T* product = patches + patch_size;
    T* planes = product + product_size;
    transform_input(patches, x, planes + 16 * plane_size, planes);
    for (int64_t t = tiles.begin; t < tiles.begin + tiles.size; ++t) {
      const Part co = weight.tile(t);
      for (int64_t f = 0; f < kFrequencies; ++f) {
        for (int64_t p = 0; p < panels; ++p) {
          multiply_tile(product + f * kTileRows * columns + p * kPanelCols<T>, columns, weight.at(f, t),
                        {s.Ci, kPanelRows<T>}, patches + (f * panels + p) * s.Ci * kPanelCols<T>, co.size,
                        std::min<int64_t>(kPanelCols<T>, places - p * kPanelCols<T>), false);
        }
      }
      for (int64_t i = 0; i < co.size; ++i) {
        transform_output(y, co.begin + i, product + i * columns, kTileRows * columns,
                         bias == nullptr ? T(0) : bias[co.begin + i], planes);
      }
    }
  }
};

// ---- Gradient of the weights

// Adds to sum [frequency, Ci, Co] what some images contribute.
template <class T>
struct WeightGradient {
  static constexpr int64_t n = kRegisterLanes<T>;

  const ConvShape& s;
  int64_t height = ceil_div(s.Ho, kOut), width = ceil_div(s.Wo, kOut), tiles = height * width;  // of an image
  int64_t rows_in = kOut * height + 2, width_in = kOut * width + 2;
  int64_t channels_in = ceil_div(s.Ci, n) * n, panels = ceil_div(s.Co, kPanelCols<T>);
  int64_t channels_out = panels * kPanelCols<T>;
  int64_t together = ceil_div(kTilesPerProduct, tiles);  // images a product

  void add_images(T* sum, const T* dy, const T* x, Part images) const {
    const int64_t steps = together * tiles, pixels_in = rows_in * width_in, pixels_out = tiles * kOut * kOut;
    const int64_t left_size = kFrequencies * steps * channels_in, right_size = kFrequencies * steps * channels_out;
    const int64_t plain_size = std::max(s.Ci * pixels_in, s.Co * pixels_out);
    T* left = scratch<T>(
        Slot::task, left_size + right_size + plain_size + std::max(channels_in * pixels_in, channels_out * pixels_out));
    T* right = left + left_size;
    T* plain = right + right_size;
    T* last = plain + plain_size;  // channels-last
    for (int64_t first = 0; first < images.size; first += together) {
      const int64_t count = std::min(together, images.size - first), used = count * tiles;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t b = images.begin + first + i;
        transform_input(left + i * tiles * channels_in, steps, x + b * s.Ci * s.Hi * s.Wi, plain, last);
        transform_gradient(right + i * tiles * kPanelCols<T>, steps, dy + b * s.Co * s.Ho * s.Wo, plain, last);
      }
      const int64_t blocks = ceil_div(s.Ci, kTileRows);
      for (int64_t f = 0; f < kFrequencies; ++f) {
        for (int64_t p = 0; p < panels; ++p) {
          for (int64_t t = 0; t < blocks; ++t) {
            const Part ci(s.Ci, blocks, t);
            multiply_tile(sum + (f * s.Ci + ci.begin) * channels_out + p * kPanelCols<T>, channels_out,
                          left + f * steps * channels_in + ci.begin, {used, channels_in},
                          right + (f * panels + p) * steps * kPanelCols<T>, ci.size, kPanelCols<T>, first > 0);
          }
        }
      }
    }
  }

  // to [frequency, steps, channels_in], from the tile of this image on.
  void transform_input(T* to, int64_t steps, const T* x, T* plain, T* last) const {
    for (int64_t c = 0; c < s.Ci; ++c) {
      pad(plain + c * rows_in * width_in, rows_in, width_in, x + c * s.Hi * s.Wi, s.Hi, s.Wi, -s.pad_top, s.pad_left);
    }
    transpose<true>(last, channels_in, plain, rows_in * width_in, s.Ci, rows_in * width_in);
    for (int64_t tile = 0; tile < tiles; ++tile, to += channels_in) {
      const T* from = last + (tile / width * width_in + tile % width) * kOut * channels_in;
      for (int64_t c = 0; c < channels_in; c += n) {
        transform<Register<T>, kIn, kIn>(
            [](auto& v, const auto& d) { input_axis(v, d); },
            [&](int r, int k) { return load_register(from + (r * width_in + k) * channels_in + c); },
            [&](int i, int j, Register<T> v) { store_register(to + (i * kIn + j) * steps * channels_in + c, v); });
      }
    }
  }

  // to [frequency, panel, steps, kPanelCols], from the tile of this image on.
  void transform_gradient(T* to, int64_t steps, const T* dy, T* plain, T* last) const {
    const int64_t row = kOut * width, pixels = row * kOut * height;
    if (row != s.Wo || kOut * height != s.Ho) {
      for (int64_t c = 0; c < s.Co; ++c) {
        pad(plain + c * pixels, kOut * height, row, dy + c * s.Ho * s.Wo, s.Ho, s.Wo, 0, 0);
      }
      dy = plain;
    }
    transpose<true>(last, channels_out, dy, pixels, s.Co, pixels);
    const int64_t used = ceil_div(s.Co, n) * n;
    for (int64_t tile = 0; tile < tiles; ++tile, to += kPanelCols<T>) {
      const T* from = last + (tile / width * row + tile % width) * kOut * channels_out;
      for (int64_t c = 0; c < used; c += n) {
        T* out = to + c / kPanelCols<T> * steps * kPanelCols<T> + c % kPanelCols<T>;
        Register<T> half[kIn][kOut];
#pragma GCC unroll 4
        for (int k = 0; k < kOut; ++k) {
          Register<T> d[kOut], v[kIn];
#pragma GCC unroll 4
          for (int r = 0; r < kOut; ++r) d[r] = load_register(from + (r * row + k) * channels_out + c);
          gradient_axis(v, d);
#pragma GCC unroll 6
          for (int i = 0; i < kIn; ++i) half[i][k] = v[i];
        }
#pragma GCC unroll 6
        for (int i = 0; i < kIn; ++i) {
          Register<T> v[kIn];
          gradient_axis(v, half[i]);
#pragma GCC unroll 6
          for (int j = 0; j < kIn; ++j) {
            store_register(out + (i * kIn + j) * panels * steps * kPanelCols<T>, v[j]);
          }
        }
      }
    }
  }

  // dweight[co, ci] = G' u G, u the sum of the partials.
  void finish(T* dweight, T* sums, int64_t partials, int64_t ci) const {
    const int64_t size = kFrequencies * s.Ci * channels_out;
    for (int64_t co = 0; co < s.Co; co += n) {
      Register<T> half[3][kIn];
      for (int j = 0; j < kIn; ++j) {
        Register<T> u[kIn], v[3];
        for (int i = 0; i < kIn; ++i) {
          const T* at = sums + ((i * kIn + j) * s.Ci + ci) * channels_out + co;
          u[i] = load_register(at);
          for (int64_t p = 1; p < partials; ++p) u[i] += load_register(at + p * size);
        }
        weight_gradient_axis(v, u);
        for (int i = 0; i < 3; ++i) half[i][j] = v[i];
      }
      for (int i = 0; i < 3; ++i) {
        Register<T> v[3];
        weight_gradient_axis(v, half[i]);
        for (int64_t lane = 0; lane < std::min(n, s.Co - co); ++lane) {
          for (int j = 0; j < 3; ++j) dweight[((co + lane) * s.Ci + ci) * 9 + 3 * i + j] = v[j][lane];
        }
      }
    }
  }
};

}  // namespace

bool winograd_pays(const ConvShape& s) {
  return s.kh == 3 && s.kw == 3 && s.stride == 1 && std::min(s.Ci, s.Co) >= kMinChannels &&
         std::max(s.Ci, s.Co) <= kMaxChannels && std::min(s.Ho, s.Wo) >= kMinSide && s.B * s.Ho * s.Wo >= kMinPixels;
}

template <class T>
void winograd(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped, const T* bias,
              const ConvShape& s) {
  const TransformedWeight<T> transformed(s.Co, s.Ci);
  transformed.fill(weight, row_step, channel_step, flipped);
  const Tiling tiling(s);
  const int64_t parts = tiling.groups * tiling.bands;
  const int64_t shares = parts >= 8 ? 1 : std::min(ceil_div(8, parts), ceil_div(transformed.tiles, 4));
  parallel_for(parts * shares, [&](int64_t task) {
    const int64_t part = task / shares;
    const Block<T> block{s, tiling, Part(s.B, tiling.groups, part / tiling.bands),
                         Part(tiling.height, tiling.bands, part % tiling.bands)};
    block.run(y, x, transformed, bias, Part(transformed.tiles, shares, task % shares));
  });
}

template <class T>
void winograd_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s) {
  const WeightGradient<T> gradient{s};
  const int64_t size = kFrequencies * s.Ci * gradient.channels_out;
  const int64_t partials = std::min(s.B, std::clamp(kPartialsSize / size, kMinPartials, kMaxPartials));
  T* const sums = scratch<T>(Slot::shared, partials * size);
  parallel_for(partials, [&](int64_t i) { gradient.add_images(sums + i * size, dy, x, Part(s.B, partials, i)); });
  parallel_for(s.Ci, [&](int64_t ci) { gradient.finish(dweight, sums, partials, ci); });
}

#define ADDP_INSTANTIATE(T)                                                                           \
  template void winograd(T*, const T*, const T*, int64_t, int64_t, bool, const T*, const ConvShape&); \
  template void winograd_bwd_weight(T*, const T*, const T*, const ConvShape&);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)
#undef ADDP_INSTANTIATE

}  // namespace addp::cpu
