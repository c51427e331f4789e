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

#include "tensor/cpu_padded_images.h"
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
using cpu::PaddedImages;
using cpu::Part;

constexpr int64_t kBlockPixels = 256;                  // of the output, per task of the forward pass, at most
constexpr int64_t kTasks = 8;                          // of the forward pass, where there are pixels enough
constexpr int64_t kMinPartials = 4, kMaxPartials = 8;  // of the gradient of the weights ...
constexpr int64_t kPartialsSize = 1 << 19;             // ... and how many elements they have together, about
constexpr int64_t kPixelsPerProduct = 256;             // of the gradient of the weights, at least where it can be

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

// A run of output pixels in one row: where its first one's patch starts in the image, and its column in the panel.
struct Run {
  int64_t from, to;
};

// The patches of `pixels` consecutive output pixels as a panel [Ci * kh * kw, kPanelCols]. Each run is copied in whole
// vectors; the excess is overwritten by the next run or, at the end of a row of the panel, by the next row. So panel
// and image need kPanelCols elements of slack behind them.
template <class T, int vectors>
void pack_runs(T* panel, const PaddedImages<T>& image, const ConvShape& s, const Run* runs, int64_t count) {
  for (int64_t c = 0; c < s.Ci; ++c) {
    for (int64_t ky = 0; ky < s.kh; ++ky) {
      const T* row = image.data + c * image.channel_size() + ky * image.row_size;
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

// `pixel` counts from the first output row of the first image on; each image has `rows` of them.
template <class T>
void pack_patches(T* panel, const PaddedImages<T>& image, const ConvShape& s, int64_t rows, int64_t pixel,
                  int64_t pixels) {
  Run runs[kPanelCols<T>];
  int64_t count = 0, longest = 0;
  for (int64_t done = 0; done < pixels;) {
    const int64_t row = (pixel + done) / s.Wo, column = (pixel + done) % s.Wo;
    const int64_t size = std::min(pixels - done, s.Wo - column);
    runs[count++] = {(row / rows * image.height + row % rows * s.stride) * image.row_size + column, done};
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

// Whether the patches are the pixels of the input as it lies.
bool pointwise(const ConvShape& s) {
  return s.kh == 1 && s.kw == 1 && s.stride == 1 && s.pad_top == 0 && s.pad_left == 0 && s.Ho == s.Hi && s.Wo == s.Wi;
}

// What a task of `convolve` computes: some rows of one image, or some whole images where they are small.
struct Block {
  Part images, rows;

  // The place in the result, channel 0, of each of `count` pixels from `pixel` on. Returns whether they are adjacent.
  bool places(int64_t* place, int64_t pixel, int64_t count, const ConvShape& s, const Grid& grid) const {
    int64_t row = pixel / s.Wo, column = pixel % s.Wo;
    for (int64_t j = 0; j < count; ++j, ++column) {
      if (column == s.Wo) column = 0, ++row;
      const int64_t image = images.begin + row / rows.size, y = rows.begin + row % rows.size;
      place[j] = image * s.Co * grid.plane + grid.first + (y * grid.width + column) * grid.step;
    }
    return grid.step == 1 && pixel / (rows.size * s.Wo) == (pixel + count - 1) / (rows.size * s.Wo);
  }
};

template <class T>
void convolve_block(T* y, const T* x, const PackedWeight<T>& weight, const T* bias, const ConvShape& s,
                    const Grid& grid, const Block& block) {
  PaddedImages<T> image(block.images.size, (block.rows.size - 1) * s.stride + s.kh, (s.Wo - 1) * s.stride + s.kw,
                        s.stride);
  T* panel =
      cpu::scratch<T>(cpu::Slot::task, (weight.K + 1 + kTileRows + 1) * kPanelCols<T> + s.Ci * image.channel_size());
  T* tile = panel + (weight.K + 1) * kPanelCols<T>;
  image.data = tile + kTileRows * kPanelCols<T>;
  const bool as_it_lies = pointwise(s) && block.images.size == 1;
  for (int64_t i = 0; i < block.images.size && !as_it_lies; ++i) {
    image.fill(i, x + (block.images.begin + i) * s.Ci * s.Hi * s.Wi, s, block.rows.begin * s.stride - s.pad_top);
  }
  const int64_t pixels = block.images.size * block.rows.size * s.Wo;
  for (int64_t p = 0; p < pixels; p += kPanelCols<T>) {
    const int64_t n = std::min<int64_t>(kPanelCols<T>, pixels - p);
    if (as_it_lies) {
      const T* from = x + block.images.begin * s.Ci * s.Hi * s.Wi + block.rows.begin * s.Wi + p;
      cpu::copy_rows(panel, kPanelCols<T>, from, s.Hi * s.Wi, s.Ci, n);
    } else {
      pack_patches(panel, image, s, block.rows.size, p, n);
    }
    int64_t place[kPanelCols<T>];
    const bool adjacent = block.places(place, p, n, s, grid);
    for (int64_t t = 0; t < weight.tiles; ++t) {
      const Part co = weight.tile(t);
      T* to = adjacent ? y + place[0] + co.begin * grid.plane : tile;
      const int64_t to_step = adjacent ? grid.plane : kPanelCols<T>;
      for (int64_t i = 0; bias != nullptr && i < co.size; ++i) std::fill_n(to + i * to_step, n, bias[co.begin + i]);
      cpu::multiply_tile(to, to_step, weight.at(t), {weight.K, kPanelRows<T>}, panel, co.size, n, bias != nullptr);
      for (int64_t i = 0; !adjacent && i < co.size; ++i) {
        for (int64_t j = 0; j < n; ++j) y[place[j] + (co.begin + i) * grid.plane] = tile[i * kPanelCols<T> + j];
      }
    }
  }
}

template <class T>
void convolve(T* y, const T* x, const PackedWeight<T>& weight, const T* bias, const ConvShape& s, const Grid& grid) {
  const int64_t pixels = s.Ho * s.Wo, block_pixels = std::min(kBlockPixels, s.B * pixels / kTasks);
  const int64_t together = pointwise(s) ? 1 : std::clamp<int64_t>(block_pixels / pixels, 1, s.B);
  const int64_t groups = ceil_div(s.B, together);                                           // of images
  const int64_t bands = ceil_div(s.Ho, std::clamp<int64_t>(block_pixels / s.Wo, 1, s.Ho));  // of rows; 1 for groups
  parallel_for(groups * bands, [&](int64_t task) {
    convolve_block(y, x, weight, bias, s, grid,
                   Block{Part(s.B, groups, task / bands), Part(s.Ho, bands, task % bands)});
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

// sum [kh, kw, Ci, Co] = or += shifted views of x times dy. x: channels-last, walked along as for the first tap; dy:
// packed, [panel, pixel, kPanelCols].
template <class T>
void add_weight_products(T* sum, const T* x, const T* dy, const cpu::Walk& walk, const ConvShape& s, bool accumulate) {
  const int64_t panels = ceil_div(s.Co, kPanelCols<T>), tiles = ceil_div(s.Ci, kTileRows);
  const int64_t pixel = walk.a_step / s.stride, row = walk.a_run / s.stride;  // apart, in x
  const int64_t panel_size = walk.inner * walk.outer * walk.blocks * kPanelCols<T>;
  for (int64_t tap = 0; tap < s.kh * s.kw; ++tap) {
    const T* shifted = x + tap / s.kw * row + tap % s.kw * pixel;
    for (int64_t p = 0, co = 0; p < panels; ++p, co += kPanelCols<T>) {
      for (int64_t t = 0; t < tiles; ++t) {
        const Part ci(s.Ci, tiles, t);
        cpu::multiply_tile(sum + (tap * s.Ci + ci.begin) * s.Co + co, s.Co, shifted + ci.begin, walk,
                           dy + p * panel_size, ci.size, std::min<int64_t>(kPanelCols<T>, s.Co - co), accumulate);
      }
    }
  }
}

// What a task of conv2d_bwd_weight does for its parts, each a band of an image's output rows, `bands` an image:
// sum [kh, kw, Ci, Co] = sum over parts and pixels. Small parts share a product.
template <class T>
void weight_sums(T* sum, const T* dy, const T* x, const ConvShape& s, Part parts, int64_t bands) {
  const int64_t band_rows = ceil_div(s.Ho, bands), plane = s.Ho * s.Wo, panels = ceil_div(s.Co, kPanelCols<T>);
  const int64_t together =
      bands > 1 ? 1 : std::clamp<int64_t>(kPixelsPerProduct / plane, 1, std::max<int64_t>(parts.size, 1));
  const int64_t width = (s.Wo - 1) * s.stride + s.kw, rows = (band_rows - 1) * s.stride + s.kh;
  const int64_t channels = ceil_div(s.Ci, kRegisterLanes<T>) * kRegisterLanes<T>;  // whole vectors
  const int64_t most = together * band_rows * s.Wo, last_size = rows * width * channels;
  PaddedImages<T> padded(1, rows, width, 1);
  T* right = cpu::scratch<T>(cpu::Slot::task,
                             panels * most * kPanelCols<T> + together * last_size + s.Ci * padded.channel_size());
  T* last = right + panels * most * kPanelCols<T>;  // x, channels-last
  padded.data = last + together * last_size;
  for (int64_t first = 0; first < parts.size; first += together) {
    const int64_t count = std::min(together, parts.size - first);
    const Part out(s.Ho, bands, (parts.begin + first) % bands);  // rows
    const int64_t pixels = out.size * s.Wo;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = (parts.begin + first + i) / bands;
      const T* image = x + b * s.Ci * s.Hi * s.Wi;
      if (pointwise(s)) {
        cpu::transpose<true>(last + i * last_size, channels, image + out.begin * s.Wi, s.Hi * s.Wi, s.Ci, pixels);
      } else {
        padded.fill(0, image, s, out.begin * s.stride - s.pad_top);
        cpu::transpose<true>(last + i * last_size, channels, padded.data, rows * width, s.Ci, rows * width);
      }
      for (int64_t p = 0, co = 0; p < panels; ++p, co += kPanelCols<T>) {
        cpu::transpose<true>(right + (p * count + i) * pixels * kPanelCols<T>, kPanelCols<T>,
                             dy + (b * s.Co + co) * plane + out.begin * s.Wo, plane,
                             std::min<int64_t>(kPanelCols<T>, s.Co - co), pixels);
      }
    }
    const int64_t step = s.stride * channels;
    add_weight_products(sum, last, right, {s.Wo, step, out.size, step * width, count, last_size}, s, first > 0);
  }
}

// dweight [Co, Ci, kh, kw] = the sum of the partial sums [kh, kw, Ci, Co], for a vector of input channels from ci on.
template <class T>
void add_partials(T* dweight, const T* sums, int64_t partials, const ConvShape& s, int64_t ci) {
  constexpr int64_t n = kRegisterLanes<T>;
  const int64_t taps = s.kh * s.kw, size = taps * s.Ci * s.Co, channels = std::min(n, s.Ci - ci);
  T* sum = cpu::scratch<T>(cpu::Slot::task, n * n + n * n * taps);  // [channel, co]
  T* turned = sum + n * n;                                          // [tap, co, channel]
  for (int64_t co = 0; co < s.Co; co += n) {
    const int64_t width = std::min(n, s.Co - co);
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t c = 0; c < channels; ++c) {
        const T* from = sums + (tap * s.Ci + ci + c) * s.Co + co;
        T* to = sum + c * n;
        std::copy_n(from, width, to);
        for (int64_t i = 1; i < partials; ++i) {
          for (int64_t j = 0; j < width; ++j) to[j] += from[i * size + j];
        }
      }
      cpu::transpose<true>(turned + tap * n * n, n, sum, n, channels, n);
    }
    for (int64_t j = 0; j < width; ++j) {
      T* to = dweight + ((co + j) * s.Ci + ci) * taps;
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t tap = 0; tap < taps; ++tap) *to++ = turned[(tap * n + j) * n + c];
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
  parallel_for(ceil_div(s.Ci, kRegisterLanes<T>),
               [&](int64_t i) { add_partials(dweight, sums, partials, s, i * kRegisterLanes<T>); });
}

#define INSTANTIATE(T)                                                               \
  template void conv2d_fwd(Cpu, T*, const T*, const T*, const T*, const ConvShape&); \
  template void conv2d_bwd_data(Cpu, T*, const T*, const T*, const ConvShape&);      \
  template void conv2d_bwd_weight(Cpu, T*, const T*, const T*, const ConvShape&);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
