// Gradient of the weights of Winograd's convolution; the mathematics is in cpu_winograd_transforms.h. Its products sum
// over tiles, so a vector holds channels. Work is split by rows of tiles, of whichever image, into a fixed number of
// partial sums that are added in order.
#include "tensor/cpu_winograd.h"

#include "tensor/cpu_winograd_transforms.h"
#include "tensor/parallel.h"

namespace addp::cpu {
namespace {

constexpr int64_t kTilesPerProduct = 64;               // length of a sum, at least
constexpr int64_t kMinPartials = 4, kMaxPartials = 8;  // where there are rows enough ...
constexpr int64_t kPartialsSize = 1 << 19;             // ... and how many elements they have together, about

// Consecutive rows of tiles of one image.
struct Band {
  int64_t image, first, rows;
};

// Adds to sum [frequency, Ci, channels_out] what some rows of tiles contribute.
template <class T, int taps>
struct WeightGradient {
  static constexpr int64_t n = kRegisterLanes<T>;

  const ConvShape& s;
  int64_t height = ceil_div(s.Ho, kOut), width = ceil_div(s.Wo, kOut);  // of an image, in tiles
  int64_t together = ceil_div(kTilesPerProduct, width);                 // rows of tiles a product
  int64_t channels_in = ceil_div(s.Ci, n) * n, panels = ceil_div(s.Co, kPanelCols<T>);
  int64_t channels_out = panels * kPanelCols<T>;
  int64_t width_in = kOut * width + taps - 1, width_out = kOut * width;

  int64_t size() const { return kFrequencies<taps> * s.Ci * channels_out; }  // of a sum
  int64_t partials() const {
    return std::min(ceil_div(s.B * height, together), std::clamp(kPartialsSize / size(), kMinPartials, kMaxPartials));
  }
  // From one frequency to the next in the operands of a product over `steps` tiles.
  int64_t left_step(int64_t steps) const { return frequency_step<T>(steps * channels_in); }
  int64_t right_step(int64_t steps) const { return frequency_step<T>(steps * channels_out); }
  int64_t pixels_in(int64_t rows) const { return (kOut * rows + taps - 1) * width_in; }
  int64_t pixels_out(int64_t rows) const { return kOut * rows * width_out; }

  // mine: rows of tiles, counted through all images.
  void add_rows(T* sum, const T* dy, const T* x, Part mine) const {
    const int64_t steps = together * width, longest = std::min(together, height);
    const int64_t left_size = kFrequencies<taps> * left_step(steps),
                  right_size = kFrequencies<taps> * right_step(steps);
    const int64_t plain_size = std::max(s.Ci * pixels_in(longest), s.Co * pixels_out(longest));
    const int64_t last_size = std::max(channels_in * pixels_in(longest), channels_out * pixels_out(longest));
    T* left = scratch<T>(Slot::task, left_size + right_size + plain_size + last_size);
    T* right = left + left_size;
    T* plain = right + right_size;
    T* last = plain + plain_size;  // channels-last
    for (int64_t first = 0; first < mine.size; first += together) {
      const int64_t count = std::min(together, mine.size - first);
      for (int64_t done = 0; done < count;) {
        const int64_t row = mine.begin + first + done;
        const Band band{row / height, row % height, std::min(count - done, height - row % height)};
        transform_input(left + done * width * channels_in, steps, x, band, plain, last);
        transform_gradient(right + done * width * kPanelCols<T>, steps, dy, band, plain, last);
        done += band.rows;
      }
      add_products(sum, left, right, steps, count * width, first > 0);
    }
  }

  void add_products(T* sum, const T* left, const T* right, int64_t steps, int64_t used, bool accumulate) const {
    const int64_t blocks = ceil_div(s.Ci, kTileRows);
    for (int64_t f = 0; f < kFrequencies<taps>; ++f) {
      for (int64_t p = 0; p < panels; ++p) {
        for (int64_t t = 0; t < blocks; ++t) {
          const Part ci(s.Ci, blocks, t);
          multiply_tile(sum + (f * s.Ci + ci.begin) * channels_out + p * kPanelCols<T>, channels_out,
                        left + f * left_step(steps) + ci.begin, {used, channels_in},
                        right + f * right_step(steps) + p * steps * kPanelCols<T>, ci.size, kPanelCols<T>, accumulate);
        }
      }
    }
  }

  // to [frequency, steps, channels_in], from the band's first tile on.
  void transform_input(T* to, int64_t steps, const T* x, Band band, T* plain, T* last) const {
    const int64_t rows = kOut * band.rows + taps - 1, pixels = rows * width_in;
    for (int64_t c = 0; c < s.Ci; ++c) {
      pad(plain + c * pixels, rows, width_in, x + (band.image * s.Ci + c) * s.Hi * s.Wi, s.Hi, s.Wi,
          kOut * band.first - s.pad_top, s.pad_left);
    }
    transpose<true>(last, channels_in, plain, pixels, s.Ci, pixels);
    const int64_t apart = left_step(steps);
    for (int64_t tile = 0; tile < band.rows * width; ++tile, to += channels_in) {
      const T* from = last + (tile / width * width_in + tile % width) * kOut * channels_in;
      for (int64_t c = 0; c < channels_in; c += n) {
        transform<InputTransform<taps>, Register<T>>(
            [&](int r, int k) { return load_register(from + (r * width_in + k) * channels_in + c); },
            [&](int i, int j, Register<T> v) { store_register(to + (i * kIn<taps> + j) * apart + c, v); });
      }
    }
  }

  // to [frequency, panel, steps, kPanelCols], from the band's first tile on.
  void transform_gradient(T* to, int64_t steps, const T* dy, Band band, T* plain, T* last) const {
    const int64_t pixels = pixels_out(band.rows), first = kOut * band.first, plane = s.Ho * s.Wo;
    dy += band.image * s.Co * plane;
    if (width_out == s.Wo && first + kOut * band.rows <= s.Ho) {
      transpose<true>(last, channels_out, dy + first * s.Wo, plane, s.Co, pixels);
    } else {
      for (int64_t c = 0; c < s.Co; ++c) {
        pad(plain + c * pixels, kOut * band.rows, width_out, dy + c * plane, s.Ho, s.Wo, first, 0);
      }
      transpose<true>(last, channels_out, plain, pixels, s.Co, pixels);
    }
    const int64_t used = ceil_div(s.Co, n) * n, apart = right_step(steps);
    for (int64_t tile = 0; tile < band.rows * width; ++tile, to += kPanelCols<T>) {
      const T* from = last + (tile / width * width_out + tile % width) * kOut * channels_out;
      for (int64_t c = 0; c < used; c += n) {
        T* out = to + c / kPanelCols<T> * steps * kPanelCols<T> + c % kPanelCols<T>;
        transform<GradientTransform<taps>, Register<T>>(
            [&](int r, int k) { return load_register(from + (r * width_out + k) * channels_out + c); },
            [&](int i, int j, Register<T> v) { store_register(out + (i * kIn<taps> + j) * apart, v); });
      }
    }
  }

  // dweight[co, ci] = G' u G, u the sum of the partials.
  void finish(T* dweight, const T* sums, int64_t ci) const {
    const int64_t count = partials();
    for (int64_t co = 0; co < s.Co; co += n) {
      transform<WeightGradientTransform<taps>, Register<T>>(
          [&](int i, int j) {
            const T* at = sums + ((i * kIn<taps> + j) * s.Ci + ci) * channels_out + co;
            Register<T> u = load_register(at);
            for (int64_t p = 1; p < count; ++p) u += load_register(at + p * size());
            return u;
          },
          [&](int i, int j, Register<T> v) {
            for (int64_t lane = 0; lane < std::min(n, s.Co - co); ++lane) {
              dweight[(((co + lane) * s.Ci + ci) * taps + i) * taps + j] = v[lane];
            }
          });
    }
  }
};

template <int taps, class T>
void weight_gradient(T* dweight, const T* dy, const T* x, const ConvShape& s) {
  const WeightGradient<T, taps> gradient{s};
  const int64_t partials = gradient.partials(), rows = s.B * gradient.height;
  T* const sums = scratch<T>(Slot::shared, partials * gradient.size());
  parallel_for(partials,
               [&](int64_t i) { gradient.add_rows(sums + i * gradient.size(), dy, x, Part(rows, partials, i)); });
  parallel_for(s.Ci, [&](int64_t ci) { gradient.finish(dweight, sums, ci); });
}

}  // namespace

template <class T>
void winograd_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s) {
  if (few_channels(s)) return winograd_rows_bwd_weight(dweight, dy, x, s);
  if (few_tiles(s)) return winograd_few_bwd_weight(dweight, dy, x, s);
  if (s.kh == 2) return weight_gradient<2>(dweight, dy, x, s);
  weight_gradient<3>(dweight, dy, x, s);
}

template void winograd_bwd_weight(float*, const float*, const float*, const ConvShape&);
template void winograd_bwd_weight(double*, const double*, const double*, const ConvShape&);

}  // namespace addp::cpu
