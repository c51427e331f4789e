// 3x3 convolutions from or to few channels, such as the colours of an image. Sums of three channels are too short to
// pay for tiles of 4 x 4 outputs, or for products that are stored and read again before they are transformed back. So
// Winograd's method along rows alone, F(4, 3): four outputs of a row cost 6 multiplications a row of taps, not 12,
//   y = A' [ sum over channels and rows ky of (G g_ky) * (B' d_ky) ],
// and the six sums of some output channels stay in registers until they are transformed. Its gradient is
//   dg_ky = G' [ sum over tiles of (B' d_ky) * (A dy) ].
// A lane is a tile of four pixels. Rows are whole tiles, so tiles are counted through the rows of a band: a vector may
// reach from one row into the next, and row ky of the taps reads ky * width tiles further on.
#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "tensor/cpu_math.h"
#include "tensor/cpu_pairs.h"
#include "tensor/cpu_winograd.h"
#include "tensor/cpu_winograd_transforms.h"
#include "tensor/parallel.h"

namespace addp::cpu {
namespace {

constexpr int kTaps = 3, kPoints = kIn<kTaps>;
constexpr int64_t kFew = 3;         // channels
constexpr int64_t kMinPixels = 64;  // of an image: the tiles of a vector
constexpr int64_t kTiles = 256;     // of a band, about
constexpr int64_t kChunk = 32;      // input channels that are transformed together
constexpr int64_t kBands = 8;       // whose gradients are transformed together
constexpr int64_t kMinBands = 4;    // of a partial sum of gradients, where they suffice for kMinPartials
constexpr int64_t kMinPartials = 4, kMaxPartials = 8;
constexpr bool kWide = kVectorBytes == 64;  // 32 registers instead of 16
constexpr int kOutputs = kWide ? 4 : 2;     // output channels whose sums they hold

// Some rows of one image. Transformed, a channel is [point, tile], the input with a row above and one below.
template <class T>
struct Band {
  static constexpr int64_t n = kRegisterLanes<T>;

  Band(const ConvShape& s, int64_t bands, int64_t i)
      : image(i / bands), rows(s.Ho, bands, i % bands), width(s.Wo / kOut), tiles(rows.size * width) {}

  int64_t image;
  Part rows;
  int64_t width, tiles;  // of a row, of all
};

int64_t bands_of(const ConvShape& s) { return ceil_div(s.Ho, std::clamp<int64_t>(kTiles * kOut / s.Wo, 1, s.Ho)); }

// Elements of a transformed channel, a point of it: of the largest band, in whole vectors, and one that runs over.
template <class T>
int64_t point_size(const ConvShape& s) {
  constexpr int64_t n = kRegisterLanes<T>;
  return (ceil_div((ceil_div(s.Ho, bands_of(s)) + kTaps - 1) * s.Wo / kOut, n) + 1) * n;
}

// a[0] b[0] a[1] b[1] ..., of the first or second half of their lanes.
template <int half, class V>
V zip(V a, V b) {
  constexpr int n = sizeof(V) / sizeof(a[0]);
  return [&]<size_t... I>(std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (half * n / 2 + I / 2 + I % 2 * n)...);
  }
  (std::make_index_sequence<n>());
}

// first v[0] v[1] ..., and v[1] ... v[n - 1] last
template <class V, class T>
V after(T first, V v) {
  constexpr int n = sizeof(V) / sizeof(T);
  return [&]<size_t... I>(std::index_sequence<I...>) {
    return __builtin_shufflevector(v, first - V{}, (I == 0 ? n : I - 1)...);
  }
  (std::make_index_sequence<n>());
}
template <class V, class T>
V before(V v, T last) {
  constexpr int n = sizeof(V) / sizeof(T);
  return [&]<size_t... I>(std::index_sequence<I...>) { return __builtin_shufflevector(v, last - V{}, (I + 1)...); }
  (std::make_index_sequence<n>());
}

// pixels[i][t] = from[4 t + i] for `lanes` tiles t, 0 behind them.
template <class T, class Lanes>
[[gnu::always_inline]] inline void load_tiles(Register<T> (&pixels)[kOut], const T* from, Lanes lanes) {
  using Pairs = Pairs<T>;
  constexpr int64_t n = kRegisterLanes<T>;
  Register<T> v[kOut], even[2], odd[2];
  for (int64_t i = 0; i < kOut; ++i) {
    if constexpr (std::is_same_v<Lanes, AllLanes<T>>) v[i] = load_register(from + i * n);
    else v[i] = load<T>(from + i * n, std::clamp<int64_t>(kOut * lanes - i * n, 0, n));
  }
  for (int i = 0; i < 2; ++i) {
    even[i] = Pairs::first(v[2 * i], v[2 * i + 1]);
    odd[i] = Pairs::second(v[2 * i], v[2 * i + 1]);
  }
  pixels[0] = Pairs::first(even[0], even[1]);
  pixels[1] = Pairs::first(odd[0], odd[1]);
  pixels[2] = Pairs::second(even[0], even[1]);
  pixels[3] = Pairs::second(odd[0], odd[1]);
}

template <class T>
void store_points(T* to, int64_t size, const Register<T> (&points)[kPoints]) {
  for (int i = 0; i < kPoints; ++i) store_register(to + i * size, points[i]);
}

// to [point, rows.size + 2, width] = B' d of the rows around a band, of a plane [H, kOut * width] with zeros around it.
template <class T>
void transform_input(T* to, int64_t size, const T* plane, int64_t H, int64_t pad_top, const Band<T>& band) {
  constexpr int64_t n = kRegisterLanes<T>;
  using Index = typename RegisterOf<T>::Index;
  const int64_t first = band.rows.begin - pad_top, count = band.rows.size + kTaps - 1, width = band.width;
  const int64_t begin = std::clamp<int64_t>(-first, 0, count), end = std::clamp(H - first, begin, count);
  const int64_t tiles = (end - begin) * width;
  for (int i = 0; i < kPoints; ++i) std::fill_n(to + i * size, begin * width, T(0));
  Index column;
  for (int64_t i = 0; i < n; ++i) column[i] = static_cast<int>(i % width);
  for (int64_t q = 0; q < tiles; q += n) {
    const T* from = plane + (first + begin) * kOut * width + kOut * q;
    Register<T> pixels[kOut], points[kPoints];
    if (q + n <= tiles) load_tiles(pixels, from, AllLanes<T>());
    else load_tiles(pixels, from, tiles - q);
    const Register<T> left = after(q > 0 ? from[-1] : T(0), pixels[3]);
    const Register<T> right = before(pixels[0], q + n < tiles ? from[kOut * n] : T(0));
    InputTransform<kTaps>::axis(points, {column == 0 ? Register<T>{} : left, pixels[0], pixels[1], pixels[2], pixels[3],
                                         column == static_cast<int>(width - 1) ? Register<T>{} : right});
    store_points(to + begin * width + q, size, points);
    column += static_cast<int>(n % width);
    column = column >= static_cast<int>(width) ? column - static_cast<int>(width) : column;
  }
  for (int i = 0; i < kPoints; ++i) std::fill(to + i * size + end * width, to + (i + 1) * size, T(0));
}

// to [point, tile] = A dy of a band, from its first pixel on; 0 behind its tiles up to a whole vector.
template <class T>
void transform_gradient(T* to, int64_t size, const T* dy, int64_t tiles) {
  constexpr int64_t n = kRegisterLanes<T>;
  for (int64_t q = 0; q < tiles; q += n) {
    Register<T> pixels[kOut], points[kPoints];
    if (q + n <= tiles) load_tiles(pixels, dy + kOut * q, AllLanes<T>());
    else load_tiles(pixels, dy + kOut * q, tiles - q);
    GradientTransform<kTaps>::axis(points, pixels);
    store_points(to + q, size, points);
  }
}

// G g of all kernels: [group of kOutputs outputs, input, ky, point, output].
template <class T>
void transform_weight(T* to, const T* weight, int64_t row_step, int64_t channel_step, bool flipped,
                      const ConvShape& s) {
  for (int64_t first = 0; first < s.Co; first += kOutputs) {
    const int64_t outputs = std::min<int64_t>(kOutputs, s.Co - first);
    for (int64_t c = 0; c < s.Ci; ++c) {
      for (int ky = 0; ky < kTaps; ++ky, to += kPoints * outputs) {
        for (int64_t co = 0; co < outputs; ++co) {
          const T* kernel = weight + (first + co) * row_step + c * channel_step;
          T g[kTaps], points[kPoints];
          for (int k = 0, tap = ky * kTaps; k < kTaps; ++k, ++tap)
            g[k] = kernel[flipped ? kTaps * kTaps - 1 - tap : tap];
          WeightTransform<kTaps>::axis<T, T>(points, g);
          for (int i = 0; i < kPoints; ++i) to[i * outputs + co] = points[i];
        }
      }
    }
  }
}

// What the sums of a band's outputs are made of: some input channels, transformed, and their weights.
template <class T>
struct Factors {
  const T *patches, *weight;
  int64_t channels, point_size;
};

// sums [output, point, tile] = or += the products for `outputs` channels; the last channels give y = A' sums + bias.
template <int outputs, class T>
void convolve(T* y, int64_t plane, T* sums, const Factors<T>& f, const T* bias, const Band<T>& band, bool first,
              bool last) {
  constexpr int64_t n = kRegisterLanes<T>;
  for (int64_t done = 0; done < band.tiles; done += n) {
    const int64_t q = last ? std::min(done, band.tiles - n) : done;
    Register<T> sum[outputs][kPoints] = {};
    if (!first) {
      for (int g = 0; g < outputs; ++g) {
        for (int i = 0; i < kPoints; ++i) sum[g][i] = load_register(sums + (g * kPoints + i) * f.point_size + q);
      }
    }
    const T *from = f.patches + q, *w = f.weight;
    for (int64_t c = 0; c < f.channels; ++c, from += kPoints * f.point_size) {
      for (int ky = 0; ky < kTaps; ++ky, w += kPoints * outputs) {
#pragma GCC unroll 6
        for (int i = 0; i < kPoints; ++i) {
          const Register<T> v = load_register(from + i * f.point_size + ky * band.width);
#pragma GCC unroll 4
          for (int g = 0; g < outputs; ++g) sum[g][i] += v * w[i * outputs + g];
        }
      }
    }
#pragma GCC unroll 4
    for (int g = 0; g < outputs; ++g) {
      if (!last) {
        store_points(sums + g * kPoints * f.point_size + q, f.point_size, sum[g]);
        continue;
      }
      Register<T> m[kOut];
      OutputTransform<kTaps>::axis(m, sum[g]);
      for (int i = 0; i < kOut; ++i) m[i] += bias == nullptr ? T(0) : bias[g];
      T* const to = y + g * plane + kOut * q;
      const Register<T> even = zip<0>(m[0], m[2]), odd = zip<0>(m[1], m[3]);
      const Register<T> even1 = zip<1>(m[0], m[2]), odd1 = zip<1>(m[1], m[3]);
      store_register(to, zip<0>(even, odd));
      store_register(to + n, zip<1>(even, odd));
      store_register(to + 2 * n, zip<0>(even1, odd1));
      store_register(to + 3 * n, zip<1>(even1, odd1));
    }
  }
}

template <class T, int... outputs>
constexpr auto convolutions(std::integer_sequence<int, outputs...>) {
  return std::array{convolve<outputs + 1, T>...};
}

// Sums of the products that gradients are made of, [point, Ci, ky, Co].
template <class T>
struct Sums {
  T* data;
  int64_t Ci, Co;

  int64_t size() const { return kPoints * Ci * kTaps * Co; }
  T& at(int64_t point, int64_t ci, int64_t ky, int64_t co) const {
    return data[((point * Ci + ci) * kTaps + ky) * Co + co];
  }
};

// Up to kFew transformed channels of some bands, from channel `first` on: [band, channel, point, tile].
template <class T>
struct Operand {
  T* data;
  int64_t most, point_size;  // channels; of one
  int64_t first = 0, channels = 0;

  int64_t channel_size() const { return kPoints * point_size; }
  int64_t band_size() const { return most * channel_size(); }
  T* at(int64_t band, int64_t channel) const { return data + band * band_size() + channel * channel_size(); }

  // f(channel, band, where it goes) for the channels from c on, of `all`.
  template <class F>
  void fill(int64_t c, int64_t all, std::span<const Band<T>> bands, F f) {
    first = c;
    channels = std::min(most, all - c);
    for (int64_t i = 0; i < channels; ++i) {
      for (size_t b = 0; b < bands.size(); ++b) f(c + i, bands[b], at(static_cast<int64_t>(b), i));
    }
  }
};

// sums += the products of `inputs` of x's channels, from its channel i on, with all `outputs` of dy.
template <int inputs, int outputs, class T>
void add_products(const Sums<T>& sums, const Operand<T>& x, int64_t i, const Operand<T>& dy,
                  std::span<const Band<T>> bands) {
  constexpr int64_t n = kRegisterLanes<T>;
  for (int64_t point = 0; point < kPoints; ++point) {
    Register<T> sum[inputs][kTaps][outputs] = {};
    for (size_t b = 0; b < bands.size(); ++b) {
      const T* left = x.at(static_cast<int64_t>(b), i) + point * x.point_size;
      const T* right = dy.at(static_cast<int64_t>(b), 0) + point * dy.point_size;
      for (int64_t q = 0; q < bands[b].tiles; q += n) {
        Register<T> v[outputs];
        for (int o = 0; o < outputs; ++o) v[o] = load_register(right + o * dy.channel_size() + q);
#pragma GCC unroll 3
        for (int c = 0; c < inputs; ++c) {
#pragma GCC unroll 3
          for (int ky = 0; ky < kTaps; ++ky) {
            const Register<T> u = load_register(left + c * x.channel_size() + ky * bands[b].width + q);
#pragma GCC unroll 3
            for (int o = 0; o < outputs; ++o) sum[c][ky][o] += u * v[o];
          }
        }
      }
    }
    for (int c = 0; c < inputs; ++c) {
      for (int ky = 0; ky < kTaps; ++ky) {
        for (int o = 0; o < outputs; ++o) {
          sums.at(point, x.first + i + c, ky, dy.first + o) += sum_lanes<T>(sum[c][ky][o]);
        }
      }
    }
  }
}

// The same of all channels of both, as many inputs at a time as registers hold sums of.
template <int outputs, class T>
void add_products(const Sums<T>& sums, const Operand<T>& x, const Operand<T>& dy, std::span<const Band<T>> bands) {
  if (kWide && x.channels == kFew) return add_products<kFew, outputs>(sums, x, 0, dy, bands);
  for (int64_t i = 0; i < x.channels; ++i) add_products<1, outputs>(sums, x, i, dy, bands);
}

// sums = what these bands contribute. Of x and dy one has few channels, and only the other is transformed in lots.
template <class T>
void sum_products(const Sums<T>& sums, const T* dy, const T* x, const ConvShape& s, std::span<const Band<T>> bands) {
  std::fill_n(sums.data, sums.size(), T(0));
  Operand<T> left{nullptr, std::min(s.Ci, kFew), point_size<T>(s)};
  Operand<T> right{nullptr, std::min(s.Co, kFew), point_size<T>(s)};
  left.data = scratch<T>(Slot::task, kBands * (left.band_size() + right.band_size()));
  right.data = left.data + kBands * left.band_size();
  for (size_t done = 0; done < bands.size(); done += kBands) {
    const auto some = bands.subspan(done, std::min<size_t>(kBands, bands.size() - done));
    for (int64_t ci = 0; ci < s.Ci; ci += kFew) {
      left.fill(ci, s.Ci, some, [&](int64_t c, const Band<T>& band, T* to) {
        transform_input(to, left.point_size, x + (band.image * s.Ci + c) * s.Hi * s.Wi, s.Hi, s.pad_top, band);
      });
      for (int64_t co = 0; co < s.Co; co += kFew) {
        if (ci == 0) {
          right.fill(co, s.Co, some, [&](int64_t c, const Band<T>& band, T* to) {
            const T* from = dy + ((band.image * s.Co + c) * s.Ho + band.rows.begin) * s.Wo;
            transform_gradient(to, right.point_size, from, band.tiles);
          });
        }
        if (right.channels == 1) add_products<1>(sums, left, right, some);
        else if (right.channels == 2) add_products<2>(sums, left, right, some);
        else add_products<kFew>(sums, left, right, some);
      }
    }
  }
}

}  // namespace

bool few_channels(const ConvShape& s) {
  return s.kh == kTaps && s.kw == kTaps && s.stride == 1 && s.pad_left == 1 && s.Wo == s.Wi && s.Wo % kOut == 0 &&
         std::min(s.Ci, s.Co) <= kFew && s.Ho * s.Wo >= kMinPixels;
}

template <class T>
void winograd_rows(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped,
                   const T* bias, const ConvShape& s) {
  static constexpr auto functions = convolutions<T>(std::make_integer_sequence<int, kOutputs>());
  const int64_t steps = kTaps * kPoints, bands = bands_of(s), size = point_size<T>(s), channel = kPoints * size;
  const int64_t chunk = s.Co <= kOutputs ? std::min(s.Ci, kChunk) : s.Ci;
  T* const transformed = scratch<T>(Slot::shared, s.Co * s.Ci * steps);
  transform_weight(transformed, weight, row_step, channel_step, flipped, s);
  parallel_for(s.B * bands, [&](int64_t task) {
    const Band<T> band(s, bands, task);
    T* const patches = scratch<T>(Slot::task, (chunk + kOutputs) * channel);
    T* const sums = patches + chunk * channel;
    for (int64_t c = 0; c < s.Ci; c += chunk) {
      const int64_t channels = std::min(chunk, s.Ci - c);
      for (int64_t i = 0; i < channels; ++i) {
        transform_input(patches + i * channel, size, x + (band.image * s.Ci + c + i) * s.Hi * s.Wi, s.Hi, s.pad_top,
                        band);
      }
      for (int64_t co = 0; co < s.Co; co += kOutputs) {
        const int64_t outputs = std::min<int64_t>(kOutputs, s.Co - co);
        functions[outputs - 1](y + ((band.image * s.Co + co) * s.Ho + band.rows.begin) * s.Wo, s.Ho * s.Wo, sums,
                               {patches, transformed + (co * s.Ci + c * outputs) * steps, channels, size},
                               bias == nullptr ? nullptr : bias + co, band, c == 0, c + channels == s.Ci);
      }
    }
  });
}

template <class T>
void winograd_rows_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s) {
  std::vector<Band<T>> bands;
  const int64_t of_image = bands_of(s), total = s.B * of_image;
  for (int64_t i = 0; i < total; ++i) bands.emplace_back(s, of_image, i);
  const int64_t partials = std::min(total, std::clamp(total / kMinBands, kMinPartials, kMaxPartials));
  const Sums<T> all{scratch<T>(Slot::shared, partials * kPoints * s.Ci * kTaps * s.Co), s.Ci, s.Co};
  const auto partial = [&](int64_t i) { return Sums<T>{all.data + i * all.size(), s.Ci, s.Co}; };
  parallel_for(partials, [&](int64_t i) {
    const Part mine(total, partials, i);
    sum_products<T>(partial(i), dy, x, s, std::span(bands).subspan(mine.begin, mine.size));
  });
  for (int64_t co = 0; co < s.Co; ++co) {
    for (int64_t i = 0; i < s.Ci * kTaps; ++i, dweight += kTaps) {
      T u[kPoints] = {}, g[kTaps];
      for (int64_t j = 0; j < partials; ++j) {
        for (int point = 0; point < kPoints; ++point) u[point] += partial(j).at(point, i / kTaps, i % kTaps, co);
      }
      WeightGradientTransform<kTaps>::axis<T, T>(g, u);
      std::copy_n(g, kTaps, dweight);
    }
  }
}

#define ADDP_INSTANTIATE(T)                                                                                \
  template void winograd_rows(T*, const T*, const T*, int64_t, int64_t, bool, const T*, const ConvShape&); \
  template void winograd_rows_bwd_weight(T*, const T*, const T*, const ConvShape&);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)
#undef ADDP_INSTANTIATE

}  // namespace addp::cpu
