// Convolution of [B, C, H, W] images as products of small packed blocks; the matrix of all patches never exists.
//   forward           y[co, pixel] = sum over (ci, ky, kx) of weight * patch: one task per image and block of output
//                     rows, which copies its zero-padded input rows and packs one panel of patches at a time.
//   gradient of data  each of the stride x stride phases of dx is a stride-1 convolution of dy with the flipped weights
//                     of those taps that reach it; with stride 1 there is one phase with all taps.
//   of weights        per image, or band of its rows where images are few, dy and x are transposed to channels-last; a
//                     shifted view of x is then a packed operand as it stands. A fixed number of partial sums over
//                     images and bands are added in order.
// 3x3 convolutions of stride 1 with many channels go to cpu_winograd.cc instead.
#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "tensor/cpu_tile.h"
#include "tensor/cpu_winograd.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {
namespace {

using cpu::ceil_div;
using cpu::kPanelCols;
using cpu::kPanelRows;
using cpu::kRegisterLanes;
using cpu::kTileRows;
using cpu::Part;

constexpr int64_t kBlockPixels = 256;                  // of the output, per task of the forward pass, at most
constexpr int64_t kTasks = 8;                          // of the forward pass, where there are pixels enough
constexpr int64_t kMinPartials = 4, kMaxPartials = 8;  // of the gradient of the weights ...
constexpr int64_t kPartialsSize = 1 << 19;             // ... and how many elements they have together, about

// Weights as a matrix [rows, channels * taps], packed tile by tile. at(t) is tile t.
template <class T>
struct PackedWeight {
  T* data;
  int64_t rows, K, tiles;

  PackedWeight(int64_t rows, int64_t channels, int64_t taps)
      : rows(rows), K(channels * taps), tiles(ceil_div(rows, kTileRows)) {
    data = cpu::scratch<T>(cpu::Slot::shared, tiles * K * kPanelRows<T>);
  }
  Part tile(int64_t t) const { return Part(rows, tiles, t); }
  T* at(int64_t t) const { return data + t * K * kPanelRows<T>; }

  // Element (i, channel, tap) is weight[i * row_step + channel * channel_step + tap_offset[tap]].
  void pack(const T* weight, int64_t row_step, int64_t channel_step, const std::vector<int64_t>& tap_offset) const {
    const int64_t taps = static_cast<int64_t>(tap_offset.size());
    parallel_for(tiles, [&](int64_t t) {
      const Part part = tile(t);
      const T* from = weight + part.begin * row_step;
      T* to = at(t);
      for (int64_t k = 0; k < K; k += taps, from += channel_step) {
        for (int64_t tap = 0; tap < taps; ++tap, to += kPanelRows<T>) {
          for (int64_t i = 0; i < part.size; ++i) to[i] = from[i * row_step + tap_offset[tap]];
        }
      }
    });
  }
};

// Zero-padded rows of all channels of one image, [Ci, rows, row_size]. The columns of a row are dealt out to `phases`
// parts, column x to place x / phases of part x % phases: with phases = stride, what a tap reads lies side by side.
template <class T>
struct PaddedImage {
  T* data;
  int64_t rows, phases, part_size, row_size;

  // `width` columns from -pad_left on.
  PaddedImage(int64_t rows, int64_t width, int64_t phases)
      : data(nullptr), rows(rows), phases(phases), part_size(ceil_div(width, phases)), row_size(part_size * phases) {}
  int64_t size(int64_t channels) const { return channels * rows * row_size; }
  int64_t place(int64_t column) const { return column % phases * part_size + column / phases; }

  // Input rows from `first` on, which may lie outside the image.
  void fill(const T* x, const ConvShape& s, int64_t first) const {
    std::fill_n(data, size(s.Ci), T(0));
    const int64_t begin = std::max<int64_t>(first, 0), end = std::min(first + rows, s.Hi);  // pad_left may be negative
    for (int64_t c = 0; c < s.Ci; ++c) {
      for (int64_t r = begin; r < end; ++r) {
        T* to = data + (c * rows + r - first) * row_size;
        const T* from = x + (c * s.Hi + r) * s.Wi;
        if (phases == 1) {
          const int64_t begin_x = std::max<int64_t>(-s.pad_left, 0), end_x = std::min(s.Wi, row_size - s.pad_left);
          cpu::copy_short(to + s.pad_left + begin_x, from + begin_x, end_x - begin_x);
        } else {
          for (int64_t phase = 0; phase < phases; ++phase)
            fill_part(to + phase * part_size, from, phase - s.pad_left, s.Wi);
        }
      }
    }
  }

 private:
  // to[j] = from[start + j * phases] where that exists.
  void fill_part(T* to, const T* from, int64_t start, int64_t Wi) const {
    const int64_t begin = ceil_div(std::max<int64_t>(-start, 0), phases);
    const int64_t end = std::min(part_size, ceil_div(std::max<int64_t>(Wi - start, 0), phases));
    if (phases == 2) {
      for (int64_t j = begin; j < end; ++j) to[j] = from[start + 2 * j];
    } else {
      for (int64_t j = begin; j < end; ++j) to[j] = from[start + j * phases];
    }
  }
};

// A run of output pixels in one row: where its first one's patch starts in the image, and its column in the panel.
struct Run {
  int64_t from, to;
};

// The patches of `pixels` consecutive output pixels as a panel [Ci * kh * kw, kPanelCols]. Each run is copied in whole
// vectors; the excess is overwritten by the next run or, at the end of a row of the panel, by the next row. So panel
// and image need kPanelCols elements of slack behind them.
template <class T, int vectors>
void pack_runs(T* panel, const PaddedImage<T>& image, const ConvShape& s, const Run* runs, int64_t count) {
  for (int64_t c = 0; c < s.Ci; ++c) {
    for (int64_t ky = 0; ky < s.kh; ++ky) {
      const T* row = image.data + (c * image.rows + ky) * image.row_size;
      for (int64_t kx = 0; kx < s.kw; ++kx, panel += kPanelCols<T>) {
        const T* from = row + (image.phases == 1 ? kx : image.place(kx));
        for (int64_t r = 0; r < count; ++r) {
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) {
            const int64_t j = v * kRegisterLanes<T>;
            cpu::store_register(panel + runs[r].to + j, cpu::load_register(from + runs[r].from + j));
          }
        }
      }
    }
  }
}

// `pixel` counts from the first output row of the image's rows.
template <class T>
void pack_patches(T* panel, const PaddedImage<T>& image, const ConvShape& s, int64_t pixel, int64_t pixels) {
  Run runs[kPanelCols<T>];
  int64_t count = 0, longest = 0;
  for (int64_t done = 0; done < pixels;) {
    const int64_t row = (pixel + done) / s.Wo, column = (pixel + done) % s.Wo;
    const int64_t size = std::min(pixels - done, s.Wo - column);
    runs[count++] = {row * s.stride * image.row_size + column, done};
    longest = std::max(longest, size);
    done += size;
  }
  static constexpr auto pack = []<size_t... V>(std::index_sequence<V...>) {
    return std::array{&pack_runs<T, static_cast<int>(V) + 1>...};
  }
  (std::make_index_sequence<cpu::kPanelVectors>());
  pack[ceil_div(longest, kRegisterLanes<T>) - 1](panel, image, s, runs, count);
}

// Where output pixel (row, column) lies in a plane of the result: first + (row * width + column) * step.
struct Grid {
  int64_t plane, width, step, first;
};

template <class T>
void convolve(T* y, const T* x, const PackedWeight<T>& weight, const T* bias, const ConvShape& s, const Grid& grid) {
  const int64_t block_pixels = std::min(kBlockPixels, s.B * s.Ho * s.Wo / kTasks);
  const int64_t block_rows = std::clamp<int64_t>(block_pixels / s.Wo, 1, s.Ho), blocks = ceil_div(s.Ho, block_rows);
  parallel_for(s.B * blocks, [&](int64_t task) {
    const int64_t b = task / blocks, first = Part(s.Ho, blocks, task % blocks).begin * s.Wo;
    const int64_t rows = Part(s.Ho, blocks, task % blocks).size, pixels = rows * s.Wo;
    PaddedImage<T> image((rows - 1) * s.stride + s.kh, (s.Wo - 1) * s.stride + s.kw, s.stride);
    T* panel = cpu::scratch<T>(cpu::Slot::task, (weight.K + 1 + kTileRows + 1) * kPanelCols<T> + image.size(s.Ci));
    T* tile = panel + (weight.K + 1) * kPanelCols<T>;
    image.data = tile + kTileRows * kPanelCols<T>;
    image.fill(x + b * s.Ci * s.Hi * s.Wi, s, first / s.Wo * s.stride - s.pad_top);
    for (int64_t p = 0; p < pixels; p += kPanelCols<T>) {
      const int64_t n = std::min<int64_t>(kPanelCols<T>, pixels - p);
      pack_patches(panel, image, s, p, n);
      for (int64_t t = 0; t < weight.tiles; ++t) {
        const Part co = weight.tile(t);
        T* plane = y + (b * s.Co + co.begin) * grid.plane;
        // With step 1 the pixels are adjacent in the result.
        T* to = grid.step == 1 ? plane + first + p : tile;
        const int64_t to_step = grid.step == 1 ? grid.plane : kPanelCols<T>;
        for (int64_t i = 0; bias != nullptr && i < co.size; ++i) std::fill_n(to + i * to_step, n, bias[co.begin + i]);
        cpu::multiply_tile(to, to_step, weight.at(t), {weight.K, kPanelRows<T>}, panel, co.size, n, bias != nullptr);
        for (int64_t j = 0; grid.step != 1 && j < n; ++j) {
          const int64_t pixel = first + p + j;
          T* at = plane + grid.first + (pixel / s.Wo * grid.width + pixel % s.Wo) * grid.step;
          for (int64_t i = 0; i < co.size; ++i) at[i * grid.plane] = tile[i * kPanelCols<T> + j];
        }
      }
    }
  });
}

// Along one axis, the part of the kernel that reaches the inputs phase, phase + stride, ... in the backward pass: taps
// first, first + stride, ... (`count` of them), as a convolution with padding `pad` that gives `outputs` values.
struct Phase {
  int64_t phase, first, count, pad, outputs;
  Phase(int64_t phase, int64_t stride, int64_t kernel, int64_t padding, int64_t inputs)
      : phase(phase),
        first((phase + padding) % stride),
        count(first < kernel ? ceil_div(kernel - first, stride) : 0),
        pad(count - 1 - (phase + padding) / stride),
        outputs(phase < inputs ? ceil_div(inputs - phase, stride) : 0) {}
};

// dx[ci, y, x] = sum over co and the taps (ky, kx) with y + pad - ky = stride * i, x + pad - kx = stride * j for
// integer i and j, of dy[co, i, j] * weight[co, ci, ky, kx]: for the y of one phase, a convolution in reversed tap
// order.
template <class T>
void backward_phase(T* dx, const T* dy, const T* weight, const ConvShape& s, const Phase& v, const Phase& h) {
  std::vector<int64_t> tap_offset;
  for (int64_t y = v.count - 1; y >= 0; --y) {
    for (int64_t x = h.count - 1; x >= 0; --x) {
      tap_offset.push_back((v.first + y * s.stride) * s.kw + h.first + x * s.stride);
    }
  }
  const PackedWeight<T> packed(s.Ci, s.Co, v.count * h.count);
  packed.pack(weight, s.kh * s.kw, s.Ci * s.kh * s.kw, tap_offset);
  const ConvShape t{s.B, s.Co, s.Ho, s.Wo, s.Ci, v.count, h.count, 1, v.pad, h.pad, v.outputs, h.outputs};
  convolve<T>(dx, dy, packed, nullptr, t, {s.Hi * s.Wi, s.Wi, s.stride, v.phase * s.Wi + h.phase});
}

// What a task of conv2d_bwd_weight does for its parts, each a band of an image's output rows, `bands` an image:
// sum [kh, kw, Ci, Co] = sum over parts and pixels.
template <class T>
void weight_sums(T* sum, const T* dy, const T* x, const ConvShape& s, Part parts, int64_t bands) {
  const int64_t band_rows = ceil_div(s.Ho, bands), most = band_rows * s.Wo, panels = ceil_div(s.Co, kPanelCols<T>);
  const int64_t width = (s.Wo - 1) * s.stride + s.kw, rows = (band_rows - 1) * s.stride + s.kh;
  const int64_t channels = ceil_div(s.Ci, kRegisterLanes<T>) * kRegisterLanes<T>;  // whole vectors
  PaddedImage<T> padded(rows, width, 1);
  T* right = cpu::scratch<T>(cpu::Slot::task, panels * most * kPanelCols<T> + rows * width * (channels + s.Ci));
  T* last = right + panels * most * kPanelCols<T>;  // x, channels-last
  padded.data = last + rows * width * channels;
  const int64_t tiles = ceil_div(s.Ci, kTileRows), plane = s.Ho * s.Wo;
  for (int64_t part = parts.begin; part < parts.begin + parts.size; ++part) {
    const int64_t b = part / bands;
    const Part out(s.Ho, bands, part % bands);  // rows
    const int64_t pixels = out.size * s.Wo;
    padded.fill(x + b * s.Ci * s.Hi * s.Wi, s, out.begin * s.stride - s.pad_top);
    cpu::transpose<true>(last, channels, padded.data, rows * width, s.Ci, rows * width);
    for (int64_t p = 0, co = 0; p < panels; ++p, co += kPanelCols<T>) {
      cpu::transpose<true>(right + p * pixels * kPanelCols<T>, kPanelCols<T>,
                           dy + (b * s.Co + co) * plane + out.begin * s.Wo, plane,
                           std::min<int64_t>(kPanelCols<T>, s.Co - co), pixels);
    }
    const cpu::Walk walk{s.Wo, s.stride * channels, out.size, s.stride * width * channels};
    for (int64_t tap = 0; tap < s.kh * s.kw; ++tap) {
      const T* shifted = last + (tap / s.kw * width + tap % s.kw) * channels;
      for (int64_t p = 0, co = 0; p < panels; ++p, co += kPanelCols<T>) {
        for (int64_t t = 0; t < tiles; ++t) {
          const Part ci(s.Ci, tiles, t);
          cpu::multiply_tile(sum + (tap * s.Ci + ci.begin) * s.Co + co, s.Co, shifted + ci.begin, walk,
                             right + p * pixels * kPanelCols<T>, ci.size, std::min<int64_t>(kPanelCols<T>, s.Co - co),
                             part > parts.begin);
        }
      }
    }
  }
}

}  // namespace

template <class T>
void conv2d_fwd(Cpu, T* y, const T* x, const T* weight, const T* bias, const ConvShape& s) {
  const int64_t taps = s.kh * s.kw;
  if (cpu::winograd_pays<T>(s)) return cpu::winograd(y, x, weight, s.Ci * taps, taps, false, bias, s);
  std::vector<int64_t> tap_offset(taps);
  std::iota(tap_offset.begin(), tap_offset.end(), 0);
  const PackedWeight<T> packed(s.Co, s.Ci, taps);
  packed.pack(weight, s.Ci * taps, taps, tap_offset);
  convolve(y, x, packed, bias, s, {s.Ho * s.Wo, s.Wo, 1, 0});
}

template <class T>
void conv2d_bwd_data(Cpu cpu, T* dx, const T* dy, const T* weight, const ConvShape& s) {
  const ConvShape reverse{s.B,  s.Co, s.Ho, s.Wo, s.Ci, s.kh, s.kw, 1, s.kh - 1 - s.pad_top, s.kw - 1 - s.pad_left,
                          s.Hi, s.Wi};
  if (s.stride == 1 && cpu::winograd_pays<T>(reverse)) {
    return cpu::winograd<T>(dx, dy, weight, s.kh * s.kw, s.Ci * s.kh * s.kw, true, nullptr, reverse);
  }
  if (s.kh < s.stride || s.kw < s.stride) fill(cpu, dx, s.B * s.Ci * s.Hi * s.Wi, 0.0);  // inputs between the patches
  for (int64_t y = 0; y < s.stride; ++y) {
    const Phase v(y, s.stride, s.kh, s.pad_top, s.Hi);
    for (int64_t x = 0; x < s.stride; ++x) {
      const Phase h(x, s.stride, s.kw, s.pad_left, s.Wi);
      if (v.count * h.count * v.outputs * h.outputs > 0) backward_phase(dx, dy, weight, s, v, h);
    }
  }
}

template <class T>
void conv2d_bwd_weight(Cpu, T* dweight, const T* dy, const T* x, const ConvShape& s) {
  if (cpu::winograd_pays<T>(s)) return cpu::winograd_bwd_weight(dweight, dy, x, s);
  const int64_t taps = s.kh * s.kw, size = taps * s.Ci * s.Co;
  const int64_t most = std::clamp(kPartialsSize / size, kMinPartials, kMaxPartials);
  const int64_t bands = std::min(s.Ho, ceil_div(most, s.B)), partials = std::min(s.B * bands, most);
  T* const sums = cpu::scratch<T>(cpu::Slot::shared, partials * size);
  parallel_for(partials,
               [&](int64_t i) { weight_sums(sums + i * size, dy, x, s, Part(s.B * bands, partials, i), bands); });
  parallel_ranges(s.Ci, ceil_div(s.Ci, 16), [&](int64_t begin, int64_t end) {
    for (int64_t ci = begin; ci < end; ++ci) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        T* sum = sums + (tap * s.Ci + ci) * s.Co;
        for (int64_t i = 1; i < partials; ++i) {
          for (int64_t co = 0; co < s.Co; ++co) sum[co] += sum[i * size + co];
        }
        for (int64_t co = 0; co < s.Co; ++co) dweight[(co * s.Ci + ci) * taps + tap] = sum[co];
      }
    }
  });
}

#define INSTANTIATE(T)                                                               \
  template void conv2d_fwd(Cpu, T*, const T*, const T*, const T*, const ConvShape&); \
  template void conv2d_bwd_data(Cpu, T*, const T*, const T*, const ConvShape&);      \
  template void conv2d_bwd_weight(Cpu, T*, const T*, const T*, const ConvShape&);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
