// Convolution of [B, C, H, W] images as products of small blocks; the matrix of all patches never exists.
//   forward           y[co, pixel] = sum over (ci, ky, kx) of weight * patch: one task per image and block of output
//                     rows, which copies its zero-padded input rows. The register tile reads the vectors of a patch in
//                     that copy; where rows are shorter than a vector, they are packed into a panel first.
//   gradient of data  each of the stride x stride phases of dx is a stride-1 convolution of dy with the flipped weights
//                     of those taps that reach it. A task computes all of them and interleaves the results.
// 3x3 convolutions of stride 1 and 4x4 of stride 2 with many channels go to cpu_winograd.cc instead; gradients of
// weights are in cpu_conv_weight.cc.
#include <algorithm>
#include <span>
#include <vector>

#include "tensor/cpu_padded_images.h"
#include "tensor/cpu_pairs.h"
#include "tensor/cpu_tile.h"
#include "tensor/cpu_winograd.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {
namespace {

using cpu::ceil_div;
using cpu::kPanelCols;
using cpu::kPanelRows;
using cpu::kPanelVectors;
using cpu::kRegisterLanes;
using cpu::kStripRows;
using cpu::kStripVectors;
using cpu::kTileRows;
using cpu::PaddedImages;
using cpu::Part;
using cpu::pointwise;

constexpr int64_t kBlockPixels = 1024;      // of the output, per task, at most
constexpr int64_t kTasks = 8;               // where there are pixels enough
constexpr int64_t kImageBytes = 192 << 10;  // of padded input per task, about: every tile of channels reads it again
constexpr int64_t kSteps = 1024;            // of a product at a time: more weights would not stay in the nearest cache
constexpr int64_t kPanelsSize = 1 << 16;    // elements that a task packs together, about
template <class T>
constexpr int64_t kStripCols = std::max<int64_t>(kPanelCols<T>, kStripVectors* kRegisterLanes<T>);

// Where in the padded input a tap reads, relative to its pixel, and its place in the kernel.
struct Tap {
  int64_t y, x, weight;
};

// The taps of a convolution, and its weights as a matrix [rows, channels * taps], packed tile by tile.
template <class T>
struct Filter {
  std::vector<Tap> taps;
  T* packed = nullptr;
};

// Consecutive pixels of an output row: where the first one's patch starts in the padded input, and its column in the
// strip.
struct Run {
  int64_t from, to, size, image, row, column;
};

// What a register tile computes: up to kStripCols pixels.
struct Strip {
  std::span<const Run> runs;
  int64_t place, cols;  // of the first result in channel 0 and row 0; how many
  bool adjacent;        // whether its results lie side by side
};

// What it multiplies them with: a tile of a filter's rows, some of the product's steps.
template <class T>
struct Factor {
  const T* weight;
  int64_t begin, steps;
};

// What a task computes: some rows of one image, or some whole images where they are small.
struct Block {
  Part images, rows;
};

// And what it reads and writes.
template <class T>
struct Buffers {
  T* y;
  const T *x, *bias;                          // x: of the first pixel; packed or padded
  std::vector<std::vector<int64_t>> offsets;  // of each filter's steps from there
  std::vector<Factor<T>> factors;             // [h], of the tile that is computed
  T *tile, *panels;                           // [h, kTileRows, kStripCols], [strip, h, panel_size]
  int64_t panel_size, together;               // strips that are packed together
};

// A convolution, or `step` x `step` of them over the same input whose results, interleaved, are an H x W plane:
// position (i, j) gives the outputs (i * step + v, j * step + h).
template <class T>
struct Convolution {
  ConvShape s;         // walk over the input: stride, padding, the kernels' extent; Ho x Wo positions
  int64_t step, H, W;  // of the output
  std::vector<Filter<T>> filters = std::vector<Filter<T>>(step * step);  // [v, h]

  const T* plain = nullptr;  // weights that are read as they lie, [Co, Ci]

  static constexpr int64_t n = kRegisterLanes<T>, tile_size = kTileRows * kStripCols<T>;
  int64_t tiles = ceil_div(s.Co, kTileRows);
  bool as_it_lies = pointwise(s);
  // Whether patches are read in vectors of a row. The last one starts early enough to be full: not too often, please.
  bool in_place = !as_it_lies && s.Wo >= n && 8 * ceil_div(s.Wo, n) * n <= 9 * s.Wo;
  int64_t strip_vectors = in_place && s.Co <= kStripRows ? kStripVectors : kPanelVectors;

  int64_t steps(const Filter<T>& f) const { return s.Ci * static_cast<int64_t>(f.taps.size()); }

  // Entry (co, ci, tap) of a filter is weight[co * row_step + ci * channel_step + tap.weight].
  void pack(const T* weight, int64_t row_step, int64_t channel_step) {
    if (as_it_lies && channel_step == 1) {
      plain = weight;
      return;
    }
    int64_t size = 0;
    for (const Filter<T>& f : filters) size += tiles * steps(f) * kPanelRows<T>;
    T* to = cpu::scratch<T>(cpu::Slot::shared, size);
    for (Filter<T>& f : filters) {
      f.packed = to;
      to += tiles * steps(f) * kPanelRows<T>;
    }
    parallel_for(static_cast<int64_t>(filters.size()) * tiles, [&](int64_t task) {
      const Part rows(s.Co, tiles, task % tiles);
      pack_tile(filters[task / tiles], task % tiles, rows.size, weight + rows.begin * row_step, row_step, channel_step);
    });
  }

  void pack_tile(const Filter<T>& f, int64_t t, int64_t rows, const T* from, int64_t row_step,
                 int64_t channel_step) const {
    T* to = f.packed + t * steps(f) * kPanelRows<T>;
    const int64_t taps = static_cast<int64_t>(f.taps.size());
    const bool in_order = taps > 0 && f.taps.front().weight == 0 && f.taps.back().weight == taps - 1;
    if (in_order && channel_step == taps) {
      return cpu::transpose<true>(to, kPanelRows<T>, from, row_step, rows, s.Ci * taps);
    }
    if (row_step == taps && taps == 1) return cpu::copy_rows(to, kPanelRows<T>, from, channel_step, s.Ci, rows);
    for (int64_t c = 0; c < s.Ci; ++c, from += channel_step) {
      for (const Tap& tap : f.taps) {
        for (int64_t i = 0; i < rows; ++i) to[i] = from[i * row_step + tap.weight];
        to += kPanelRows<T>;
      }
    }
  }

  void run(T* y, const T* x, const T* bias) const {
    const int64_t pixels = s.Ho * s.Wo;
    const int64_t block = std::min(kBlockPixels, s.B * pixels / kTasks);
    const int64_t together = as_it_lies ? 1 : std::clamp<int64_t>(block / pixels, 1, s.B);
    const int64_t row_bytes = s.Ci * ((s.Wo - 1) * s.stride + s.kw) * static_cast<int64_t>(sizeof(T));
    const int64_t cached = as_it_lies || row_bytes == 0 ? s.Ho : (kImageBytes / row_bytes - s.kh) / s.stride + 1;
    const int64_t groups = ceil_div(s.B, together);  // of images
    const int64_t bands =
        ceil_div(s.Ho, std::clamp<int64_t>(std::min(block / s.Wo, cached), 1, s.Ho));  // of rows; 1 for groups
    parallel_for(groups * bands, [&](int64_t task) {
      run_block(y, x, bias, Block{Part(s.B, groups, task / bands), Part(s.Ho, bands, task % bands)});
    });
  }

  void run_block(T* y, const T* x, const T* bias, const Block& block) const {
    PaddedImages<T> image(block.images.size, (block.rows.size - 1) * s.stride + s.kh, (s.Wo - 1) * s.stride + s.kw,
                          s.stride);
    std::vector<Run> runs;
    const std::vector<Strip> strips = strips_of(runs, block, image);
    Buffers<T> b{y, x + block.images.begin * s.Ci * s.Hi * s.Wi, bias, {}, {}, nullptr, nullptr, 0, 0};
    int64_t longest = 0;
    for (const Filter<T>& f : filters) {
      b.offsets.push_back(offsets_of(f, image));
      longest = std::max(longest, steps(f));
    }
    if (!in_place) b.panel_size = (longest + 1) * kPanelCols<T>;
    b.together = in_place ? block.images.size * block.rows.size * s.Wo
                          : std::clamp<int64_t>(kPanelsSize / b.panel_size / step, 1, strips.size());
    const int64_t panels_size = in_place ? 0 : b.together * step * b.panel_size;
    b.tile =
        cpu::scratch<T>(cpu::Slot::task, step * tile_size + panels_size + s.Ci * image.channel_size() + kPanelCols<T>);
    b.panels = b.tile + step * tile_size;
    image.data = b.panels + panels_size;
    if (as_it_lies) {
      b.x += block.rows.begin * s.Wi;
    } else {
      for (int64_t i = 0; i < block.images.size; ++i) {
        image.fill(i, b.x + i * s.Ci * s.Hi * s.Wi, s, block.rows.begin * s.stride - s.pad_top);
      }
      b.x = image.data;
    }
    for (size_t first = 0; first < strips.size(); first += b.together) {
      const auto some = std::span(strips).subspan(first, std::min<size_t>(b.together, strips.size() - first));
      for (int64_t v = 0; v < step; ++v) run_strips(b, some, v);
    }
  }

  // Row v of each of the strips' positions.
  void run_strips(Buffers<T>& b, std::span<const Strip> strips, int64_t v) const {
    const std::vector<int64_t>* offsets = b.offsets.data() + v * step;
    T* panel = b.panels;
    for (size_t i = 0; i < strips.size() && !in_place; ++i) {
      for (int64_t h = 0; h < step; ++h, panel += b.panel_size) pack_panel(panel, b.x, strips[i], offsets[h]);
    }
    // Results that lie side by side can be added to, unless a row's last vector computes some of them again.
    const bool can_add = std::ranges::all_of(strips, &Strip::adjacent) && (!in_place || s.Wo % n == 0);
    const int64_t parts = can_add ? std::max<int64_t>(1, ceil_div(steps(filters[v * step]), kSteps)) : 1;
    for (int64_t part = 0; part < parts; ++part) {
      for (int64_t t = 0; t < tiles; ++t) {
        b.factors.clear();
        for (int64_t h = 0; h < step; ++h) b.factors.push_back(factor(v * step + h, t, parts, part));
        const Part co(s.Co, tiles, t);
        panel = b.panels;
        for (const Strip& strip : strips) {
          run_tile(b, strip, panel, co, v, part > 0);
          panel += step * b.panel_size;
        }
      }
    }
  }

  Factor<T> factor(int64_t filter, int64_t t, int64_t parts, int64_t part) const {
    const int64_t count = steps(filters[filter]);
    const Part k(count, parts, part);
    return {plain != nullptr ? plain + Part(s.Co, tiles, t).begin * s.Ci + k.begin
                             : filters[filter].packed + (t * count + k.begin) * kPanelRows<T>,
            k.begin, k.size};
  }

  // What each step of the product reads, relative to a pixel's place in the source.
  std::vector<int64_t> offsets_of(const Filter<T>& f, const PaddedImages<T>& image) const {
    std::vector<int64_t> offsets;
    for (int64_t c = 0; c < s.Ci; ++c) {
      for (const Tap& tap : f.taps) {
        offsets.push_back(as_it_lies ? c * s.Hi * s.Wi
                                     : c * image.channel_size() + tap.y * image.row_size + image.place(tap.x));
      }
    }
    return offsets;
  }

  // Fills `runs` and cuts them into strips.
  std::vector<Strip> strips_of(std::vector<Run>& runs, const Block& block, const PaddedImages<T>& image) const {
    const int64_t in_row = in_place ? ceil_div(s.Wo, n) : s.Wo, total = block.images.size * block.rows.size * in_row;
    const int64_t room = in_place ? strip_vectors * n : kPanelCols<T>;
    std::vector<Strip> strips;
    runs.reserve(total);
    strips.reserve(in_place ? ceil_div(total, strip_vectors) : ceil_div(total, room));
    for (int64_t done = 0; done < total;) {
      const size_t first = runs.size();
      Strip strip{{}, 0, 0, step == 1};
      while (done < total && strip.cols < room) {
        const int64_t row = done / in_row, i = row / block.rows.size, r = row % block.rows.size;
        const int64_t column = in_place ? std::min((done - row * in_row) * n, s.Wo - n) : done - row * in_row;
        const int64_t size = in_place ? n : std::min(room - strip.cols, s.Wo - column);
        const int64_t from = as_it_lies ? done : (i * image.height + r * s.stride) * image.row_size + column;
        runs.push_back({from, strip.cols, size, block.images.begin + i, block.rows.begin + r, column});
        if (strip.cols == 0) strip.place = place(runs.back(), 0);
        strip.adjacent = strip.adjacent && place(runs.back(), 0) == strip.place + strip.cols;
        strip.cols += size;
        done += in_place ? 1 : size;
      }
      strip.runs = std::span(runs).subspan(first);
      strips.push_back(strip);
    }
    return strips;
  }

  // panel [step, kPanelCols]. Runs are copied in whole vectors; the excess is overwritten by the next run or, at the
  // end of a row of the panel, by the next row. So panel and image need kPanelCols elements of slack behind them.
  void pack_panel(T* panel, const T* from, const Strip& strip, const std::vector<int64_t>& offsets) const {
    const int64_t count = static_cast<int64_t>(offsets.size());
    if (as_it_lies && count > 0) {
      return cpu::copy_rows(panel, kPanelCols<T>, from + strip.runs[0].from, s.Hi * s.Wi, count, strip.cols);
    }
    for (int64_t k = 0; k < count; ++k, panel += kPanelCols<T>) {
      for (const Run& run : strip.runs) {
        for (int64_t j = 0; j < run.size; j += n) {
          cpu::store_register(panel + run.to + j,
                              cpu::load_register(from + offsets[static_cast<size_t>(k)] + run.from + j));
        }
      }
    }
  }

  // These output channels, of row v of the strip's positions; `add`: to what is there.
  void run_tile(const Buffers<T>& b, const Strip& strip, const T* panel, Part co, int64_t v, bool add) const {
    cpu::Shifted<T> patches{};
    for (size_t r = 0; r < strip.runs.size() && in_place; ++r) patches.start[r] = b.x + strip.runs[r].from;
    const T* const bias = b.bias != nullptr && !add ? b.bias + co.begin : nullptr;
    for (int64_t h = 0; h < step; ++h, panel += b.panel_size) {
      T* to = strip.adjacent ? b.y + strip.place + co.begin * H * W : b.tile + h * tile_size;
      const int64_t to_step = strip.adjacent ? H * W : kStripCols<T>;
      const Factor<T>& f = b.factors[h];
      if (plain != nullptr) {
        cpu::multiply_rows(to, to_step, f.weight, s.Ci, f.steps, panel + f.begin * kPanelCols<T>, co.size, strip.cols,
                           add, {nullptr, bias});
      } else if (in_place) {
        patches.offset = b.offsets[v * step + h].data() + f.begin;
        cpu::multiply_strip(to, to_step, f.weight, f.steps, patches, co.size, strip.cols, add, bias);
      } else {
        cpu::multiply_tile(to, to_step, f.weight, {f.steps, kPanelRows<T>}, panel + f.begin * kPanelCols<T>, co.size,
                           strip.cols, add, {nullptr, bias});
      }
    }
    if (!strip.adjacent) store(b.y, b.tile, strip, co, v);
  }

  // Of a run's first result in channel 0.
  int64_t place(const Run& run, int64_t v) const {
    return (run.image * s.Co * H + run.row * step + v) * W + run.column * step;
  }

  // tile: [step, kTileRows, kStripCols], interleaved into the output's rows v of each position.
  void store(T* y, const T* tile, const Strip& strip, Part co, int64_t v) const {
    using Pairs = cpu::Pairs<T>;
    for (const Run& run : strip.runs) {
      if (run.row * step + v >= H) continue;
      const int64_t size = std::min(run.size * step, W - run.column * step);
      for (int64_t i = 0; i < co.size; ++i) {
        T* to = y + place(run, v) + (co.begin + i) * H * W;
        const T* from = tile + i * kStripCols<T> + run.to;
        if (step == 1) {
          cpu::copy_short(to, from, size);
          continue;
        }
        int64_t j = 0;
        for (; step == 2 && j + 2 * Pairs::n <= size; j += 2 * Pairs::n) {
          Pairs::store(to + j, Pairs::interleave(Pairs::load(from + j / 2), Pairs::load(from + tile_size + j / 2)));
        }
        for (; j < size; ++j) to[j] = from[j % step * tile_size + j / step];
      }
    }
  }
};

// Along one axis, the part of the kernel that reaches the inputs phase, phase + stride, ... in the backward pass: taps
// first, first + stride, ... (`count` of them), as a convolution with padding `pad`.
struct Phase {
  int64_t first, count, pad;
  Phase(int64_t phase, int64_t stride, int64_t kernel, int64_t padding)
      : first((phase + padding) % stride),
        count(first < kernel ? ceil_div(kernel - first, stride) : 0),
        pad(count - 1 - (phase + padding) / stride) {}
};

// All phases of an axis, over an input with the padding of the one that needs most.
struct Axis {
  std::vector<Phase> phases;
  int64_t pad, extent = 0;

  Axis(int64_t stride, int64_t kernel, int64_t padding) : pad(-padding) {
    for (int64_t p = 0; p < stride; ++p) phases.emplace_back(p, stride, kernel, padding);
    for (const Phase& p : phases) pad = p.count > 0 ? std::max(pad, p.pad) : pad;
    for (const Phase& p : phases) extent = p.count > 0 ? std::max(extent, pad - p.pad + p.count) : extent;
  }
};

}  // namespace

template <class T>
void conv2d_fwd(Cpu, T* y, const T* x, const T* weight, const T* bias, const ConvShape& s) {
  const int64_t taps = s.kh * s.kw;
  if (cpu::winograd_pays<T>(s)) return cpu::winograd(y, x, weight, s.Ci * taps, taps, false, bias, s);
  if (cpu::winograd_halving_pays<T>(s)) return cpu::winograd_halving(y, x, weight, bias, s);
  Convolution<T> convolution{s, 1, s.Ho, s.Wo};
  for (int64_t tap = 0; tap < taps; ++tap) convolution.filters[0].taps.push_back({tap / s.kw, tap % s.kw, tap});
  convolution.pack(weight, s.Ci * taps, taps);
  convolution.run(y, x, bias);
}

// dx[ci, y, x] = sum over co and the taps (ky, kx) with y + pad - ky = stride * i, x + pad - kx = stride * j for
// integer i and j, of dy[co, i, j] * weight[co, ci, ky, kx]: for the (y, x) of one phase, a convolution in reversed tap
// order.
template <class T>
void conv2d_bwd_data(Cpu, T* dx, const T* dy, const T* weight, const ConvShape& s) {
  const ConvShape reverse{s.B,  s.Co, s.Ho, s.Wo, s.Ci, s.kh, s.kw, 1, s.kh - 1 - s.pad_top, s.kw - 1 - s.pad_left,
                          s.Hi, s.Wi};
  if (s.stride == 1 && cpu::winograd_pays<T>(reverse)) {
    return cpu::winograd<T>(dx, dy, weight, s.kh * s.kw, s.Ci * s.kh * s.kw, true, nullptr, reverse);
  }
  if (cpu::winograd_halving_pays<T>(s)) return cpu::winograd_halving_bwd_data(dx, dy, weight, s);
  const Axis vertical(s.stride, s.kh, s.pad_top), horizontal(s.stride, s.kw, s.pad_left);
  const ConvShape t{s.B,
                    s.Co,
                    s.Ho,
                    s.Wo,
                    s.Ci,
                    vertical.extent,
                    horizontal.extent,
                    1,
                    vertical.pad,
                    horizontal.pad,
                    ceil_div(s.Hi, s.stride),
                    ceil_div(s.Wi, s.stride)};
  Convolution<T> convolution{t, s.stride, s.Hi, s.Wi};
  auto filter = convolution.filters.begin();
  for (const Phase& v : vertical.phases) {
    for (const Phase& h : horizontal.phases) {
      for (int64_t y = 0; y < v.count; ++y) {
        for (int64_t x = 0; x < h.count; ++x) {
          filter->taps.push_back(
              {vertical.pad - v.pad + y, horizontal.pad - h.pad + x,
               (v.first + (v.count - 1 - y) * s.stride) * s.kw + h.first + (h.count - 1 - x) * s.stride});
        }
      }
      ++filter;
    }
  }
  convolution.pack(weight, s.kh * s.kw, s.Ci * s.kh * s.kw);
  convolution.run(dx, dy, nullptr);
}

#define INSTANTIATE(T)                                                               \
  template void conv2d_fwd(Cpu, T*, const T*, const T*, const T*, const ConvShape&); \
  template void conv2d_bwd_data(Cpu, T*, const T*, const T*, const ConvShape&);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
