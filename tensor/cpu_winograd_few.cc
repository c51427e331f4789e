// Winograd's convolution where tiles are few and channels many, so that the weights are most of the data: the
// transformed input of all images is shared, and each task transforms the weights of its own output channels, some
// input channels at a time, so that they stay in its cache. A lane is a tile, of whichever image; the mathematics is in
// cpu_winograd_transforms.h. Gradients of weights are split by outputs too, so there are no partial sums.
#include "tensor/cpu_winograd.h"
#include "tensor/cpu_winograd_transforms.h"
#include "tensor/parallel.h"

namespace addp::cpu {
namespace {

constexpr int64_t kMinTiles = 12, kMaxTiles = 256;
constexpr int64_t kFewPixels = 2048;                            // from here on, only very many channels pay
constexpr int64_t kManyChannels = 64, kVeryManyChannels = 256;  // at least
constexpr int64_t kChunk = 128;          // input channels whose weights are transformed at a time
constexpr int64_t kChannelsPerTask = 8;  // where images are transformed

// All tiles of a batch of images of H x W pixels in the lanes; columns: whole vectors of them.
template <class T>
struct Columns {
  static constexpr int64_t n = kRegisterLanes<T>;

  int64_t B, H, W, height, width;  // in pixels; in tiles
  int64_t tiles = B * height * width, columns = ceil_div(tiles, n) * n, panels = ceil_div(tiles, kPanelCols<T>);

  int64_t apart(int64_t channels) const { return frequency_step<T>(panels * channels * kPanelCols<T>); }
  int64_t cols(int64_t panel) const { return std::min<int64_t>(kPanelCols<T>, tiles - panel * kPanelCols<T>); }

  // to [frequency, panel, channels, kPanelCols], the frequencies apart(channels): the tiles' patches, whose first
  // begins at (-top, -left), transformed.
  template <class Transform>
  void fill(T* to, const T* x, int64_t channels, int64_t top, int64_t left) const {
    constexpr int64_t N = Transform::from;
    const int64_t rows = kOut * height + N - kOut, row_size = kOut * width + N - kOut, step = apart(channels);
    parallel_for(ceil_div(channels, kChannelsPerTask), [&](int64_t task) {
      T* entries = scratch<T>(Slot::task, N * N * columns + rows * row_size);  // [N, N, columns]
      T* padded = entries + N * N * columns;
      std::fill_n(entries, N * N * columns, T(0));
      for (int64_t c = task * kChannelsPerTask; c < std::min(channels, (task + 1) * kChannelsPerTask); ++c) {
        T* next = entries;
        for (int64_t b = 0; b < B; ++b) {
          pad(padded, rows, row_size, x + (b * channels + c) * H * W, H, W, -top, left);
          for (int64_t tile = 0; tile < height * width; ++tile, ++next) {
            const T* from = padded + (tile / width * row_size + tile % width) * kOut;
            for (int64_t i = 0; i < N * N; ++i) next[i * columns] = from[i / N * row_size + i % N];
          }
        }
        for (int64_t q = 0; q < columns; q += n) {
          T* out = to + (q / kPanelCols<T> * channels + c) * kPanelCols<T> + q % kPanelCols<T>;
          transform<Transform, Register<T>>(
              [&](int r, int k) { return load_register(entries + (r * N + k) * columns + q); },
              [&](int i, int j, Register<T> v) { store_register(out + (i * kIn<3> + j) * step, v); });
        }
      }
    });
  }

  // One channel of y, B images of `channels`, = A' m A + bias; m is [frequency] rows `step` apart.
  void collect(T* y, int64_t channels, const T* m, int64_t step, T bias, T* room) const {
    const Register<T> shift = bias - Register<T>{};
    for (int64_t q = 0; q < columns; q += n) {
      transform<OutputTransform<3>, Register<T>>(
          [&](int i, int j) { return load_register(m + (i * kIn<3> + j) * step + q); },
          [&](int i, int j, Register<T> v) { store_register(room + (i * kOut + j) * columns + q, v + shift); });
    }
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t b = tile / (height * width), top = tile / width % height * kOut, left = tile % width * kOut;
      T* to = y + (b * channels * H + top) * W + left;
      for (int64_t i = 0; i < std::min<int64_t>(kOut, H - top); ++i) {
        for (int64_t j = 0; j < std::min<int64_t>(kOut, W - left); ++j) {
          to[i * W + j] = room[(i * kOut + j) * columns + tile];
        }
      }
    }
  }
};

template <class T>
Columns<T> columns_of(const ConvShape& s, int64_t H, int64_t W) {
  return {s.B, H, W, ceil_div(s.Ho, kOut), ceil_div(s.Wo, kOut)};
}

}  // namespace

bool few_tiles(const ConvShape& s) {
  const int64_t tiles = s.B * ceil_div(s.Ho, kOut) * ceil_div(s.Wo, kOut);
  const int64_t channels = s.B * s.Ho * s.Wo < kFewPixels ? kManyChannels : kVeryManyChannels;
  return s.kh == 3 && s.kw == 3 && s.stride == 1 && tiles >= kMinTiles && tiles <= kMaxTiles &&
         std::min(s.Ci, s.Co) >= channels && 2 * tiles * kOut * kOut <= 3 * s.B * s.Ho * s.Wo;
}

template <class T>
void winograd_few(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped,
                  const T* bias, const ConvShape& s) {
  const Columns<T> input = columns_of<T>(s, s.Hi, s.Wi), output = columns_of<T>(s, s.Ho, s.Wo);
  const int64_t apart = input.apart(s.Ci), step = kTileRows * output.columns;
  T* const patches = scratch<T>(Slot::shared, kFrequencies<3> * apart);
  input.template fill<InputTransform<3>>(patches, x, s.Ci, s.pad_top, s.pad_left);
  const int64_t tiles = ceil_div(s.Co, kTileRows), chunks = ceil_div(s.Ci, kChunk);
  parallel_for(tiles, [&](int64_t t) {
    const Part co(s.Co, tiles, t);
    const int64_t weights_apart = frequency_step<T>(ceil_div(s.Ci, chunks) * kPanelRows<T>);
    T* transformed = scratch<T>(Slot::task, kFrequencies<3> * (weights_apart + step) + kOut * kOut * output.columns);
    T* product = transformed + kFrequencies<3> * weights_apart;
    for (int64_t k = 0; k < chunks; ++k) {
      const Part ci(s.Ci, chunks, k);
      transform_weight<3>(transformed, weights_apart, weight + co.begin * row_step + ci.begin * channel_step, row_step,
                          channel_step, flipped, co.size, ci.size);
      for (int64_t f = 0; f < kFrequencies<3>; ++f) {
        for (int64_t p = 0; p < input.panels; ++p) {
          multiply_tile(product + f * step + p * kPanelCols<T>, output.columns, transformed + f * weights_apart,
                        {ci.size, kPanelRows<T>}, patches + f * apart + (p * s.Ci + ci.begin) * kPanelCols<T>, co.size,
                        input.cols(p), k > 0);
        }
      }
    }
    for (int64_t i = 0; i < co.size; ++i) {
      output.collect(y + (co.begin + i) * s.Ho * s.Wo, s.Co, product + i * output.columns, step,
                     bias == nullptr ? T(0) : bias[co.begin + i], product + kFrequencies<3> * step);
    }
  });
}

template <class T>
void winograd_few_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s) {
  constexpr int64_t cols = kPanelCols<T>;
  const Columns<T> input = columns_of<T>(s, s.Hi, s.Wi), output = columns_of<T>(s, s.Ho, s.Wo);
  const int64_t apart = input.apart(s.Ci), dy_apart = output.apart(s.Co), panels = ceil_div(s.Co, cols);
  const int64_t right_size = input.tiles * cols;  // of a frequency and panel
  T* const patches = scratch<T>(Slot::shared, kFrequencies<3> * (apart + dy_apart + panels * right_size));
  T* const gradients = patches + kFrequencies<3> * apart;
  T* const right = gradients + kFrequencies<3> * dy_apart;  // [panel, frequency, tile, kPanelCols]
  input.template fill<InputTransform<3>>(patches, x, s.Ci, s.pad_top, s.pad_left);
  output.template fill<GradientTransform<3>>(gradients, dy, s.Co, 0, 0);
  parallel_for(panels * kFrequencies<3>, [&](int64_t task) {
    const int64_t p = task / kFrequencies<3>, f = task % kFrequencies<3>;
    for (int64_t q = 0; q < output.panels; ++q) {
      transpose<true>(right + task * right_size + q * cols * cols, cols,
                      gradients + f * dy_apart + (q * s.Co + p * cols) * cols, cols, std::min(cols, s.Co - p * cols),
                      output.cols(q));
    }
  });
  const int64_t tiles = ceil_div(s.Ci, kTileRows), step = kTileRows * cols;
  parallel_for(tiles * panels, [&](int64_t task) {
    const int64_t p = task / tiles, co = p * cols, width = std::min(cols, s.Co - co);
    const Part ci(s.Ci, tiles, task % tiles);
    T* sum = scratch<T>(Slot::task, (kFrequencies<3> + 9) * step);  // [frequency, ci, co]
    T* taps = sum + kFrequencies<3> * step;                         // [ci, tap, co]
    for (int64_t f = 0; f < kFrequencies<3>; ++f) {
      for (int64_t q = 0; q < input.panels; ++q) {
        multiply_rows(sum + f * step, cols, patches + f * apart + (q * s.Ci + ci.begin) * cols, cols, input.cols(q),
                      right + (p * kFrequencies<3> + f) * right_size + q * cols * cols, ci.size, width, q > 0);
      }
    }
    for (int64_t i = 0; i < ci.size; ++i) {
      for (int64_t j = 0; j < width; j += kRegisterLanes<T>) {
        transform<WeightGradientTransform<3>, Register<T>>(
            [&](int r, int k) { return load_register(sum + (r * kIn<3> + k) * step + i * cols + j); },
            [&](int r, int k, Register<T> v) { store_register(taps + (i * 9 + 3 * r + k) * cols + j, v); });
      }
    }
    transpose<false>(dweight + (co * s.Ci + ci.begin) * 9, s.Ci * 9, taps, cols, ci.size * 9, width);
  });
}

#define ADDP_INSTANTIATE(T)                                                                               \
  template void winograd_few(T*, const T*, const T*, int64_t, int64_t, bool, const T*, const ConvShape&); \
  template void winograd_few_bwd_weight(T*, const T*, const T*, const ConvShape&);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)
#undef ADDP_INSTANTIATE

}  // namespace addp::cpu
