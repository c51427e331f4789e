// Forward pass (and gradient of the data) of Winograd's convolution; the mathematics is in cpu_winograd_transforms.h.
//
// Where there are images enough and they are small, a vector holds one pixel of that many images. Else it holds that
// many tiles of one image: the input is dealt out by row and column modulo 4 into 16 planes
// [tile rows + 1, tile columns + 1]; entry (r, c) of the patches of consecutive tiles is then a run of plane
// (r % 4, c % 4), and no element is moved again. The tile that each row of planes has too many is computed and dropped.
#include "tensor/cpu_winograd.h"

#include "tensor/cpu_winograd_transforms.h"
#include "tensor/parallel.h"

namespace addp::cpu {
namespace {

constexpr int64_t kColumns = 96;          // of the products of a task, about, where a vector holds tiles ...
constexpr int64_t kImageColumns = 128;    // ... and at most, where it holds images
constexpr int64_t kMinPixels = 2048;      // below, transforming the weights costs more than it saves,
constexpr int64_t kMinImagePixels = 512;  // the same where a vector holds images
constexpr int64_t kMinSide = 12;          // below, too many of the tiles are dropped where a vector holds tiles
constexpr int64_t kMinChannels = 16, kMaxChannels = 256;

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

// G g G' of all kernels, packed for the register tile: [frequency, tile of rows, Ci, kPanelRows].
template <class T, int taps>
struct TransformedWeight {
  T* data;
  int64_t rows, channels, tiles;

  TransformedWeight(int64_t rows, int64_t channels) : rows(rows), channels(channels), tiles(ceil_div(rows, kTileRows)) {
    data = scratch<T>(Slot::shared, kFrequencies<taps> * tiles * channels * kPanelRows<T>);
  }
  Part tile(int64_t t) const { return Part(rows, tiles, t); }
  T* at(int64_t frequency, int64_t t) const { return data + (frequency * tiles + t) * channels * kPanelRows<T>; }

  void fill(const T* weight, int64_t row_step, int64_t channel_step, bool flipped) const {
    parallel_for(tiles * ceil_div(channels, 32), [&](int64_t task) {
      const int64_t t = task % tiles, begin = task / tiles * 32, end = std::min(channels, begin + 32);
      transform_weight<taps>(at(0, t) + begin * kPanelRows<T>, at(1, t) - at(0, t),
                             weight + tile(t).begin * row_step + begin * channel_step, row_step, channel_step, flipped,
                             tile(t).size, end - begin);
    });
  }
};

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

// What a task of the forward pass reads and writes when a lane is a tile: rows of tiles of some images.
template <class T, int taps>
struct TileLanes {
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
  int64_t room() const { return 16 * plane_size + padded_size(); }  // elements of scratch for the transforms

  // patches [frequency, panel, Ci, kPanelCols] = B' d B, the frequencies frequency_step apart.
  void transform_input(T* patches, const T* x, T* planes) const {
    T* padded = planes + 16 * plane_size;
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
        const int64_t apart = frequency_step<T>(panels * s.Ci * kPanelCols<T>);
        transform<InputTransform<taps>, Register<T>>(
            [&](int r, int k) {
              return load_register(planes + (r % 4 * 4 + k % 4) * plane_size + q + r / 4 * part + k / 4);
            },
            [&](int i, int j, Register<T> v) { store_register(to + (i * kIn<taps> + j) * apart, v); });
      }
    }
  }

  // y = A' m A + bias for one output channel; m is [frequency] planes `frequency_step` apart.
  void transform_output(T* y, int64_t channel, const T* m, int64_t frequency_step, T bias, T* planes) const {
    const Register<T> shift = bias - Register<T>{};
    for (int64_t q = 0; q < places; q += n) {
      transform<OutputTransform<taps>, Register<T>>(
          [&](int i, int j) { return load_register(m + (i * kIn<taps> + j) * frequency_step + q); },
          [&](int i, int j, Register<T> v) { store_register(planes + (4 * i + j) * plane_size + q, v + shift); });
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
};

// Whether vectors of images pay: nearly full, and a row of tiles is not too much for a task.
template <class T>
bool images_fill_vectors(const ConvShape& s) {
  constexpr int64_t n = kRegisterLanes<T>;
  return ceil_div(s.B, n) * n * 4 <= 5 * s.B && ceil_div(s.Wo, kOut) * n <= kImageColumns;
}

// The same when a lane is an image: rows of tiles of up to n images, place = tile * n + image.
template <class T, int taps>
struct ImageLanes {
  static constexpr int64_t n = kRegisterLanes<T>;

  const ConvShape& s;
  Part images, rows;  // rows of tiles
  int64_t width = ceil_div(s.Wo, kOut), places = rows.size * width * n;
  int64_t panels = ceil_div(places, kPanelCols<T>);
  int64_t rows_in = kOut * rows.size + taps - 1, width_in = kOut * width + taps - 1;
  int64_t room() const { return rows_in * width_in * n; }

  // patches [frequency, panel, Ci, kPanelCols] = B' d B.
  void transform_input(T* patches, const T* x, T* padded) const {
    std::fill_n(padded, rows_in * width_in * n, T(0));
    const int64_t apart = frequency_step<T>(panels * s.Ci * kPanelCols<T>);
    for (int64_t c = 0; c < s.Ci; ++c) {
      gather(padded, x + (images.begin * s.Ci + c) * s.Hi * s.Wi);
      for (int64_t tile = 0; tile < rows.size * width; ++tile) {
        const T* from = padded + (tile / width * width_in + tile % width) * kOut * n;
        T* to = patches + (tile * n / kPanelCols<T> * s.Ci + c) * kPanelCols<T> + tile * n % kPanelCols<T>;
        transform<InputTransform<taps>, Register<T>>(
            [&](int r, int k) { return load_register(from + (r * width_in + k) * n); },
            [&](int i, int j, Register<T> v) { store_register(to + (i * kIn<taps> + j) * apart, v); });
      }
    }
  }

  // y = A' m A + bias for one output channel; m is [frequency] planes `frequency_step` apart.
  void transform_output(T* y, int64_t channel, const T* m, int64_t frequency_step, T bias, T* pixels) const {
    const Register<T> shift = bias - Register<T>{};
    for (int64_t tile = 0; tile < rows.size * width; ++tile) {
      T* to = pixels + (tile / width * kOut * width + tile % width) * kOut * n;
      transform<OutputTransform<taps>, Register<T>>(
          [&](int i, int j) { return load_register(m + (i * kIn<taps> + j) * frequency_step + tile * n); },
          [&](int i, int j, Register<T> v) { store_register(to + (i * kOut * width + j) * n, v + shift); });
    }
    const int64_t first = kOut * rows.begin;
    scatter(y + ((images.begin * s.Co + channel) * s.Ho + first) * s.Wo, pixels,
            std::min(kOut * rows.size, s.Ho - first));
  }

 private:
  // padded [rows_in, width_in, n] gets the rows of one channel, image by image in `x`, that lie inside the image.
  void gather(T* padded, const T* x) const {
    const int64_t top = kOut * rows.begin - s.pad_top;  // the input row of padded row 0
    const int64_t begin = std::max<int64_t>(top, 0), end = std::min(top + rows_in, s.Hi);
    const int64_t used = std::min(s.Wi, width_in - s.pad_left), image = s.Ci * s.Hi * s.Wi;
    T* to = padded + ((begin - top) * width_in + s.pad_left) * n;
    int64_t column = 0;
    for (int64_t pixel = begin * s.Wi; pixel < end * s.Wi; pixel += n) {
      const int64_t count = std::min(n, end * s.Wi - pixel);
      Register<T> r[n];
      for (int64_t i = 0; i < n; ++i) {
        const T* from = x + std::min(i, images.size - 1) * image + pixel;
        if (count == n) {
          r[i] = load_register(from);
        } else {
          std::memcpy(&r[i], from, static_cast<size_t>(count) * sizeof(T));
        }
      }
      detail::transpose_square<T, n / 2>(r);
      for (int64_t j = 0; j < count; ++j, ++column) {
        if (column == s.Wi) column = 0, to += width_in * n;
        if (column < used) store_register(to + column * n, r[j]);
      }
    }
  }

  // The reverse: `count` rows of pixels [.., kOut * width, n] to one channel of each image.
  void scatter(T* y, const T* pixels, int64_t count) const {
    const int64_t image = s.Co * s.Ho * s.Wo;
    int64_t column = 0;
    for (int64_t pixel = 0; pixel < count * s.Wo; pixel += n) {
      const int64_t size = std::min(n, count * s.Wo - pixel);
      Register<T> r[n] = {};
      for (int64_t j = 0; j < size; ++j, ++column) {
        if (column == s.Wo) column = 0, pixels += kOut * width * n;
        r[j] = load_register(pixels + column * n);
      }
      detail::transpose_square<T, n / 2>(r);
      for (int64_t i = 0; i < std::min(images.size, n); ++i) {
        T* to = y + i * image + pixel;
        if (size == n) {
          store_register(to, r[i]);
        } else {
          std::memcpy(to, &r[i], static_cast<size_t>(size) * sizeof(T));
        }
      }
    }
  }
};

// A task: these tiles of the output channels of a block.
template <int taps, class T, class Block>
void run(const Block& block, T* y, const T* x, const TransformedWeight<T, taps>& weight, const T* bias, Part tiles) {
  const int64_t Ci = weight.channels, columns = block.panels * kPanelCols<T>;
  const int64_t step = frequency_step<T>(columns * Ci), patch_size = kFrequencies<taps> * step;
  const int64_t product_size = kFrequencies<taps> * kTileRows * columns;
  T* patches = scratch<T>(Slot::task, patch_size + product_size + block.room());
  T* product = patches + patch_size;
  T* room = product + product_size;
  block.transform_input(patches, x, room);
  for (int64_t t = tiles.begin; t < tiles.begin + tiles.size; ++t) {
    const Part co = weight.tile(t);
    for (int64_t f = 0; f < kFrequencies<taps>; ++f) {
      for (int64_t p = 0; p < block.panels; ++p) {
        multiply_tile(product + f * kTileRows * columns + p * kPanelCols<T>, columns, weight.at(f, t),
                      {Ci, kPanelRows<T>}, patches + f * step + p * Ci * kPanelCols<T>, co.size,
                      std::min<int64_t>(kPanelCols<T>, block.places - p * kPanelCols<T>), false);
      }
    }
    for (int64_t i = 0; i < co.size; ++i) {
      block.transform_output(y, co.begin + i, product + i * columns, kTileRows * columns,
                             bias == nullptr ? T(0) : bias[co.begin + i], room);
    }
  }
}

// Whether a lane should be an image ...
template <class T>
bool by_images(const ConvShape& s) {
  const int64_t covered = ceil_div(s.Ho, kOut) * ceil_div(s.Wo, kOut) * kOut * kOut;  // pixels of whole tiles
  return images_fill_vectors<T>(s) && 2 * covered <= 3 * s.Ho * s.Wo && s.B * s.Ho * s.Wo >= kMinImagePixels;
}

// ... or may be a tile.
bool by_tiles(const ConvShape& s) { return std::min(s.Ho, s.Wo) >= kMinSide && s.B * s.Ho * s.Wo >= kMinPixels; }

template <int taps, class T>
void convolve(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped, const T* bias,
              const ConvShape& s) {
  const TransformedWeight<T, taps> transformed(s.Co, s.Ci);
  transformed.fill(weight, row_step, channel_step, flipped);
  if (images_fill_vectors<T>(s)) {
    const int64_t height = ceil_div(s.Ho, kOut), row = ceil_div(s.Wo, kOut) * kRegisterLanes<T>;
    const int64_t groups = ceil_div(s.B, kRegisterLanes<T>);
    const int64_t bands = std::max(ceil_div(height, kImageColumns / row), std::min(height, ceil_div(4, groups)));
    parallel_for(groups * bands, [&](int64_t task) {
      const ImageLanes<T, taps> block{s, Part(s.B, groups, task / bands), Part(height, bands, task % bands)};
      run(block, y, x, transformed, bias, Part(transformed.tiles, 1, 0));
    });
    return;
  }
  const Tiling tiling(s);
  const int64_t parts = tiling.groups * tiling.bands;
  const int64_t shares = parts >= 8 ? 1 : std::min(ceil_div(8, parts), ceil_div(transformed.tiles, 4));
  parallel_for(parts * shares, [&](int64_t task) {
    const int64_t part = task / shares;
    const TileLanes<T, taps> block{s, tiling, Part(s.B, tiling.groups, part / tiling.bands),
                                   Part(tiling.height, tiling.bands, part % tiling.bands)};
    run(block, y, x, transformed, bias, Part(transformed.tiles, shares, task % shares));
  });
}

}  // namespace

template <class T>
bool winograd_pays(const ConvShape& s) {
  if (few_channels(s)) return true;
  if (few_tiles(s)) return true;
  return s.kh == 3 && s.kw == 3 && s.stride == 1 && std::min(s.Ci, s.Co) >= kMinChannels &&
         std::max(s.Ci, s.Co) <= kMaxChannels && (by_images<T>(s) || by_tiles(s));
}

template <class T>
void winograd(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped, const T* bias,
              const ConvShape& s) {
  if (few_channels(s)) return winograd_rows(y, x, weight, row_step, channel_step, flipped, bias, s);
  const bool few = few_tiles(s) && !(by_images<T>(s) && std::max(s.Ci, s.Co) < kMaxChannels);
  if (few) return winograd_few(y, x, weight, row_step, channel_step, flipped, bias, s);
  if (s.kh == 2) return convolve<2>(y, x, weight, row_step, channel_step, flipped, bias, s);
  convolve<3>(y, x, weight, row_step, channel_step, flipped, bias, s);
}

template <class T>
bool winograd_halving_pays(const ConvShape& s) {
  const auto small = [](int64_t pad) { return pad >= 0 && pad <= 2; };
  return s.kh == 4 && s.kw == 4 && s.stride == 2 && small(s.pad_top) && small(s.pad_left) &&
         std::min(s.Ci, s.Co) >= kMinChannels && std::max(s.Ci, s.Co) <= kMaxChannels &&
         s.B * s.Ho * s.Wo >= kMinPixels && (by_images<T>(s) || by_tiles(s));
}

#define ADDP_INSTANTIATE(T)                                 \
  template bool winograd_pays<T>(const ConvShape&);         \
  template bool winograd_halving_pays<T>(const ConvShape&); \
  template void winograd(T*, const T*, const T*, int64_t, int64_t, bool, const T*, const ConvShape&);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)
#undef ADDP_INSTANTIATE

}  // namespace addp::cpu
