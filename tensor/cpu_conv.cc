// Convolution of [B, C, H, W] images as products of small packed blocks; the matrix of all patches never exists.
//   forward           y[co, pixel] = sum over (ci, ky, kx) of weight * patch: one task per image and block of output
//                     rows, which copies its zero-padded input rows and packs one panel of patches at a time.
//   gradient of data  each of the stride x stride phases of dx is a stride-1 convolution of dy with the flipped weights
//                     of those taps that reach it; with stride 1 there is one phase with all taps.
//   of weights        per image, dy and x are transposed to channels-last; a shifted view of x is then a packed operand
//                     as it stands. A fixed number of partial sums over images are added in order.
#include <algorithm>

#include "tensor/cpu_tile.h"
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

constexpr int64_t kBlockPixels = 256;  // of the output, per task of the forward pass
constexpr int64_t kMaxPartials = 8;    // of the gradient of the weights

// The rows of a matrix A [rows, K], packed tile by tile; a(i, k) reads an element.
template <class T>
struct PackedRows {
  T* data;
  int64_t rows, K, tiles;

  PackedRows(T* data, int64_t rows, int64_t K) : data(data), rows(rows), K(K), tiles(ceil_div(rows, kTileRows)) {}
  static int64_t size(int64_t rows, int64_t K) { return ceil_div(rows, kTileRows) * K * kPanelRows<T>; }
  Part tile(int64_t t) const { return Part(rows, tiles, t); }
  const T* at(int64_t t) const { return data + t * K * kPanelRows<T>; }

  template <class F>
  void pack(F a) const {
    parallel_for(tiles, [&](int64_t t) {
      const Part part = tile(t);
      T* to = data + t * K * kPanelRows<T>;
      for (int64_t i = 0; i < part.size; ++i) {
        for (int64_t k = 0; k < K; ++k) to[k * kPanelRows<T> + i] = a(part.begin + i, k);
      }
    });
  }
};

// Input rows [first, first + rows) of all channels of one image, with zeros around: [Ci, rows, width]. Coordinates are
// those of the unpadded input; the first column is -pad_left.
template <class T>
void copy_padded(T* to, const T* x, const ConvShape& s, int64_t first, int64_t rows, int64_t width) {
  const int64_t begin = std::clamp<int64_t>(s.pad_left, 0, width);
  const int64_t end = std::clamp<int64_t>(s.Wi + s.pad_left, begin, width);
  for (int64_t c = 0; c < s.Ci; ++c) {
    for (int64_t r = first; r < first + rows; ++r, to += width) {
      if (r < 0 || r >= s.Hi) {
        std::fill_n(to, width, T(0));
        continue;
      }
      std::fill_n(to, begin, T(0));
      std::copy_n(x + (c * s.Hi + r) * s.Wi + begin - s.pad_left, end - begin, to + begin);
      std::fill_n(to + end, width - end, T(0));
    }
  }
}

// The patches of `pixels` consecutive output pixels from `pixel` on, as a panel [Ci * kh * kw, kPanelCols]. image:
// copy_padded with its first row at output row row0. Runs of one output row are copied in whole vectors, each
// overwriting the excess of the one before; the image has a vector of slack behind it.
template <class T>
void pack_patches(T* panel, const T* image, const ConvShape& s, int64_t row0, int64_t rows, int64_t width,
                  int64_t pixel, int64_t pixels) {
  for (int64_t done = 0; done < pixels;) {
    const int64_t row = (pixel + done) / s.Wo, column = (pixel + done) % s.Wo;
    const int64_t run = std::min(pixels - done, s.Wo - column);
    const T* from = image + (row - row0) * s.stride * width + column * s.stride;
    T* to = panel + done;
    // Excess that would leave the panel's row would hit finished columns of the next step: then 0, copy exactly.
    int64_t whole = ceil_div(run, kRegisterLanes<T>) * kRegisterLanes<T>;
    if (s.stride != 1 || done + whole > kPanelCols<T>) whole = 0;
    for (int64_t c = 0; c < s.Ci; ++c, from += rows * width) {
      for (int64_t ky = 0; ky < s.kh; ++ky) {
        for (int64_t kx = 0; kx < s.kw; ++kx, to += kPanelCols<T>) {
          const T* source = from + ky * width + kx;
          if (whole == 2 * kRegisterLanes<T>) {
            cpu::store_register(to, cpu::load_register(source));
            cpu::store_register(to + kRegisterLanes<T>, cpu::load_register(source + kRegisterLanes<T>));
          } else if (whole > 0) {
            for (int64_t j = 0; j < run; j += kRegisterLanes<T>) {
              cpu::store_register(to + j, cpu::load_register(source + j));
            }
          } else {
            for (int64_t j = 0; j < run; ++j) to[j] = source[j * s.stride];
          }
        }
      }
    }
    done += run;
  }
}

// Where output pixel (row, column) lies in a plane of the result: first + (row * width + column) * step.
struct Grid {
  int64_t plane, width, step, first;
};

template <class T>
void convolve(T* y, const T* x, const PackedRows<T>& weight, const T* bias, const ConvShape& s, const Grid& grid) {
  const int64_t block_rows = std::clamp<int64_t>(kBlockPixels / s.Wo, 1, s.Ho), blocks = ceil_div(s.Ho, block_rows);
  const int64_t width = (s.Wo - 1) * s.stride + s.kw;
  parallel_for(s.B * blocks, [&](int64_t task) {
    const int64_t b = task / blocks;
    const Part out(s.Ho, blocks, task % blocks);
    const int64_t rows = (out.size - 1) * s.stride + s.kh;
    T* panel = cpu::scratch<T>(cpu::Slot::task,
                               (weight.K + kTileRows) * kPanelCols<T> + s.Ci * rows * width + kRegisterLanes<T>);
    T* tile = panel + weight.K * kPanelCols<T>;
    T* image = tile + kTileRows * kPanelCols<T>;
    copy_padded(image, x + b * s.Ci * s.Hi * s.Wi, s, out.begin * s.stride - s.pad_top, rows, width);
    const int64_t end = (out.begin + out.size) * s.Wo;
    for (int64_t p = out.begin * s.Wo; p < end; p += kPanelCols<T>) {
      const int64_t n = std::min<int64_t>(kPanelCols<T>, end - p);
      pack_patches(panel, image, s, out.begin, rows, width, p, n);
      for (int64_t t = 0; t < weight.tiles; ++t) {
        const Part co = weight.tile(t);
        T* plane = y + (b * s.Co + co.begin) * grid.plane;
        // With step 1 the pixels are adjacent in the result.
        T* to = grid.step == 1 ? plane + p : tile;
        const int64_t to_step = grid.step == 1 ? grid.plane : kPanelCols<T>;
        for (int64_t i = 0; bias != nullptr && i < co.size; ++i) std::fill_n(to + i * to_step, n, bias[co.begin + i]);
        cpu::multiply_tile(to, to_step, weight.at(t), {weight.K, kPanelRows<T>}, panel, co.size, n, bias != nullptr);
        for (int64_t j = 0; grid.step != 1 && j < n; ++j) {
          T* at = plane + grid.first + ((p + j) / s.Wo * grid.width + (p + j) % s.Wo) * grid.step;
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
  const int64_t taps = v.count * h.count, K = s.Co * taps;
  const PackedRows<T> packed(cpu::scratch<T>(cpu::Slot::shared, PackedRows<T>::size(s.Ci, K)), s.Ci, K);
  packed.pack([&](int64_t ci, int64_t k) {
    const int64_t tap = taps - 1 - k % taps;
    const int64_t ky = v.first + tap / h.count * s.stride, kx = h.first + tap % h.count * s.stride;
    return weight[((k / taps * s.Ci + ci) * s.kh + ky) * s.kw + kx];
  });
  const ConvShape t{s.B, s.Co, s.Ho, s.Wo, s.Ci, v.count, h.count, 1, v.pad, h.pad, v.outputs, h.outputs};
  convolve<T>(dx, dy, packed, nullptr, t, {s.Hi * s.Wi, s.Wi, s.stride, v.phase * s.Wi + h.phase});
}

// What a task of conv2d_bwd_weight does for its images: sum [kh, kw, Ci, Co] = sum over images and pixels.
template <class T>
void weight_sums(T* sum, const T* dy, const T* x, const ConvShape& s, Part images) {
  const int64_t pixels = s.Ho * s.Wo, panels = ceil_div(s.Co, kPanelCols<T>);
  const int64_t width = (s.Wo - 1) * s.stride + s.kw, rows = (s.Ho - 1) * s.stride + s.kh;
  const int64_t channels = ceil_div(s.Ci, kRegisterLanes<T>) * kRegisterLanes<T>;  // whole vectors
  T* right = cpu::scratch<T>(cpu::Slot::task,
                             panels * pixels * kPanelCols<T> + rows * width * (channels + s.Ci));  // dy, channels-last
  T* last = right + panels * pixels * kPanelCols<T>;                                               // x, channels-last
  T* padded = last + rows * width * channels;
  const int64_t tiles = ceil_div(s.Ci, kTileRows);
  for (int64_t b = images.begin; b < images.begin + images.size; ++b) {
    copy_padded(padded, x + b * s.Ci * s.Hi * s.Wi, s, -s.pad_top, rows, width);
    cpu::transpose<true>(last, channels, padded, rows * width, s.Ci, rows * width);
    for (int64_t p = 0, co = 0; p < panels; ++p, co += kPanelCols<T>) {
      cpu::transpose<true>(right + p * pixels * kPanelCols<T>, kPanelCols<T>, dy + (b * s.Co + co) * pixels, pixels,
                           std::min<int64_t>(kPanelCols<T>, s.Co - co), pixels);
    }
    const cpu::Walk walk{s.Wo, s.stride * channels, s.Ho, s.stride * width * channels};
    for (int64_t tap = 0; tap < s.kh * s.kw; ++tap) {
      const T* shifted = last + (tap / s.kw * width + tap % s.kw) * channels;
      for (int64_t p = 0, co = 0; p < panels; ++p, co += kPanelCols<T>) {
        for (int64_t t = 0; t < tiles; ++t) {
          const Part ci(s.Ci, tiles, t);
          cpu::multiply_tile(sum + (tap * s.Ci + ci.begin) * s.Co + co, s.Co, shifted + ci.begin, walk,
                             right + p * pixels * kPanelCols<T>, ci.size, std::min<int64_t>(kPanelCols<T>, s.Co - co),
                             b > images.begin);
        }
      }
    }
  }
}

}  // namespace

template <class T>
void conv2d_fwd(Cpu, T* y, const T* x, const T* weight, const T* bias, const ConvShape& s) {
  const int64_t K = s.Ci * s.kh * s.kw;
  const PackedRows<T> packed(cpu::scratch<T>(cpu::Slot::shared, PackedRows<T>::size(s.Co, K)), s.Co, K);
  packed.pack([&](int64_t co, int64_t k) { return weight[co * K + k]; });
  convolve(y, x, packed, bias, s, {s.Ho * s.Wo, s.Wo, 1, 0});
}

template <class T>
void conv2d_bwd_data(Cpu cpu, T* dx, const T* dy, const T* weight, const ConvShape& s) {
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
  const int64_t taps = s.kh * s.kw, size = taps * s.Ci * s.Co, partials = std::min(s.B, kMaxPartials);
  T* const sums = cpu::scratch<T>(cpu::Slot::shared, partials * size);
  parallel_for(partials, [&](int64_t i) { weight_sums(sums + i * size, dy, x, s, Part(s.B, partials, i)); });
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
