// Gradient of the weights of a convolution: per image, or band of its rows where images are few, dy and x are
// transposed to channels-last; a shifted view of x is then a packed operand as it stands. A fixed number of partial
// sums over images and bands are added in order. 3x3 convolutions of stride 1 and 4x4 of stride 2 with many
// channels go to cpu_winograd_bwd.cc instead.
#include <algorithm>

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
using cpu::pointwise;

constexpr int64_t kMinPartials = 4, kMaxPartials = 8;
constexpr int64_t kPartialsSize = 1 << 19;  // elements of all partial sums together, about
constexpr int64_t kOperandsSize = 1 << 20;  // elements of transposed operands of a 1x1 convolution, about
constexpr int64_t kSplitOutputs = 1 << 16;  // weights of a 1x1 convolution from which on its outputs are split
constexpr int64_t kPixelsPerProduct = 256;  // at least where it can be

// Whether the channels of a row of taps fit into a register tile: in an x whose channels are not rounded up, they lie
// side by side. (Transposing writes vectors of channels, each over the end of the one before.)
template <class T>
bool rows_of_taps(const ConvShape& s) {
  return s.kw * s.Ci <= kTileRows && s.Ci <= kRegisterLanes<T>;
}

// sum [kh, kw, Ci, Co] = or += shifted views of x times dy. x: channels-last, walked along as for the first tap; dy:
// packed, [panel, pixel, kPanelCols].
template <class T>
void add_weight_products(T* sum, const T* x, const T* dy, const cpu::Walk& walk, const ConvShape& s, bool accumulate) {
  const int64_t together = rows_of_taps<T>(s) ? s.kw : 1, rows = together * s.Ci;  // taps; rows of the product
  const int64_t panels = ceil_div(s.Co, kPanelCols<T>), tiles = ceil_div(rows, kTileRows);
  const int64_t pixel = walk.a_step / s.stride, row = walk.a_run / s.stride;  // apart, in x
  const int64_t panel_size = walk.inner * walk.outer * walk.blocks * kPanelCols<T>;
  for (int64_t tap = 0; tap < s.kh * s.kw; tap += together) {
    const T* shifted = x + tap / s.kw * row + tap % s.kw * pixel;
    for (int64_t p = 0, co = 0; p < panels; ++p, co += kPanelCols<T>) {
      for (int64_t t = 0; t < tiles; ++t) {
        const Part part(rows, tiles, t);
        cpu::multiply_tile(sum + (tap * s.Ci + part.begin) * s.Co + co, s.Co, shifted + part.begin, walk,
                           dy + p * panel_size, part.size, std::min<int64_t>(kPanelCols<T>, s.Co - co), accumulate);
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
  const int64_t channels = rows_of_taps<T>(s) ? s.Ci : ceil_div(s.Ci, kRegisterLanes<T>) * kRegisterLanes<T>;
  const int64_t most = together * band_rows * s.Wo, last_size = rows * width * channels;
  PaddedImages<T> padded(1, rows, width, 1);
  T* right = cpu::scratch<T>(cpu::Slot::task, panels * most * kPanelCols<T> + together * last_size + kRegisterLanes<T> +
                                                  s.Ci * padded.channel_size());
  T* last = right + panels * most * kPanelCols<T>;  // x, channels-last; transposing writes whole vectors
  padded.data = last + together * last_size + kRegisterLanes<T>;
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

// The same of a convolution whose roles of x and dy were exchanged: sums [kh, kw, Co, Ci], of reversed taps.
template <class T>
void add_exchanged(T* dweight, const T* sums, int64_t partials, const ConvShape& s) {
  const int64_t taps = s.kh * s.kw, size = taps * s.Ci * s.Co;
  T* sum = cpu::scratch<T>(cpu::Slot::task, size);
  std::copy_n(sums, size, sum);
  for (int64_t p = 1; p < partials; ++p) {
    for (int64_t i = 0; i < size; ++i) sum[i] += sums[p * size + i];
  }
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t i = 0; i < s.Co * s.Ci; ++i) dweight[i * taps + taps - 1 - tap] = *sum++;
  }
}

// dweight [Co, Ci] = dy x', the products cut by outputs instead of pixels: no partial sums. Tiles of dy and panels of x
// are packed once for all tasks, so many pixels at a time.
template <class T>
void pointwise_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s) {
  const int64_t plane = s.Ho * s.Wo, panels = ceil_div(s.Ci, kPanelCols<T>), tiles = ceil_div(s.Co, kTileRows);
  const int64_t most = std::max<int64_t>(kOperandsSize / (s.Ci + s.Co), kPanelCols<T>);  // pixels
  const int64_t pieces = ceil_div(plane, most), together = std::clamp<int64_t>(most / plane, 1, s.B);
  const int64_t longest = together * ceil_div(plane, pieces);
  T* const left = cpu::scratch<T>(cpu::Slot::shared, longest * (tiles * kPanelRows<T> + panels * kPanelCols<T>));
  T* const right = left + longest * tiles * kPanelRows<T>;
  for (int64_t first = 0; first < s.B * pieces; first += together) {
    const Part part(plane, pieces, first % pieces);
    const int64_t images = std::min(together, s.B * pieces - first), pixels = images * part.size;
    const int64_t groups = tiles + panels;  // of channels
    parallel_for(images * groups, [&](int64_t task) {
      const int64_t b = first / pieces + task / groups, at = task / groups * part.size;
      const int64_t t = task % groups, p = t - tiles, ci = p * kPanelCols<T>;
      if (t < tiles) {
        const Part co(s.Co, tiles, t);
        cpu::transpose<true>(left + (t * pixels + at) * kPanelRows<T>, kPanelRows<T>,
                             dy + (b * s.Co + co.begin) * plane + part.begin, plane, co.size, part.size);
      } else {
        cpu::transpose<true>(right + (p * pixels + at) * kPanelCols<T>, kPanelCols<T>,
                             x + (b * s.Ci + ci) * plane + part.begin, plane,
                             std::min<int64_t>(kPanelCols<T>, s.Ci - ci), part.size);
      }
    });
    parallel_for(tiles * panels, [&](int64_t task) {
      const int64_t t = task % tiles, p = task / tiles, ci = p * kPanelCols<T>;
      const Part co(s.Co, tiles, t);
      cpu::multiply_tile(dweight + co.begin * s.Ci + ci, s.Ci, left + t * pixels * kPanelRows<T>,
                         {pixels, kPanelRows<T>}, right + p * pixels * kPanelCols<T>, co.size,
                         std::min<int64_t>(kPanelCols<T>, s.Ci - ci), first > 0);
    });
  }
}

}  // namespace

template <class T>
void conv2d_bwd_weight(Cpu, T* dweight, const T* dy, const T* x, const ConvShape& s) {
  if (cpu::winograd_pays<T>(s)) return cpu::winograd_bwd_weight(dweight, dy, x, s);
  if (cpu::winograd_halving_pays<T>(s)) return cpu::winograd_halving_bwd_weight(dweight, dy, x, s);
  if (pointwise(s) && s.Ci * s.Co >= kSplitOutputs) return pointwise_bwd_weight(dweight, dy, x, s);
  const ConvShape exchanged{s.B,  s.Co, s.Ho, s.Wo, s.Ci, s.kh, s.kw, 1, s.kh - 1 - s.pad_top, s.kw - 1 - s.pad_left,
                            s.Hi, s.Wi};
  const bool exchange = s.stride == 1 && s.Co < s.Ci && rows_of_taps<T>(exchanged);
  if (exchange) std::swap(x, dy);
  const ConvShape& t = exchange ? exchanged : s;
  const int64_t size = s.kh * s.kw * s.Ci * s.Co;
  const int64_t most = std::clamp(kPartialsSize / size, kMinPartials, kMaxPartials);
  const int64_t bands = std::min(t.Ho, ceil_div(most, s.B)), partials = std::min(s.B * bands, most);
  T* const sums = cpu::scratch<T>(cpu::Slot::shared, partials * size);
  parallel_for(partials,
               [&](int64_t i) { weight_sums(sums + i * size, dy, x, t, Part(s.B * bands, partials, i), bands); });
  if (exchange) return add_exchanged(dweight, sums, partials, s);
  parallel_for(ceil_div(s.Ci, kRegisterLanes<T>),
               [&](int64_t i) { add_partials(dweight, sums, partials, s, i * kRegisterLanes<T>); });
}

template void conv2d_bwd_weight(Cpu, float*, const float*, const float*, const ConvShape&);
template void conv2d_bwd_weight(Cpu, double*, const double*, const double*, const ConvShape&);

}  // namespace addp::kernel
