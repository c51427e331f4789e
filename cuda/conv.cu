// Convolution of [B, C, H, W] images as products of tiles; the matrix of all patches never exists.
//   forward           y[co, pixel] = sum over (tap, ci) of weight * x. A block owns 64 channels of a run of pixels; at
//   each
//                     step it holds 16 channels of x, shifted by one tap, in shared memory while the next are on the
//                     way.
//   gradient of data  the same kernel: each of the stride x stride phases of dx is a convolution of dy with those taps
//                     that reach it, in reversed direction.
//   of weights        dweight[co, (ci, tap)] = sum over pixels; the pixels are cut into a number of parts that depends
//   on
//                     the shape only, whose sums are added in order.
#include "cuda/context.h"
#include "cuda/tile.cuh"
#include "tensor/dispatch.h"

namespace addp::kernel {
namespace {

constexpr int kDepth = 16;  // input channels per step of the forward pass
template <class T>
constexpr int kColumnQuads = sizeof(T) == 4 ? 2 : 1;
template <class T>
constexpr int kColumns = kTileSide* kColumnQuads<T>;  // pixels of a tile

constexpr int kWantedBlocks = 528;  // four for each multiprocessor of a H100
constexpr int kFewestSteps = 8;     // of a part of the gradient of the weights

// What the kernel of the forward pass and of the gradient of the data sees: `in` is x or dy, `out` is y or dx.
struct Convolution {
  int images, in_channels, in_height, in_width, out_channels, out_height, out_width;
  int kh, kw, stride, pad_top, pad_left;
  int padded_in, padded_out;  // channels of the packed weights
};

// One axis of one phase. Output number i lies at out_first + i * out_step. Of its taps, number t is tap_first +
// t * tap_step of the weights and reads the input at i * in_step + in_first + t * direction.
struct Axis {
  int outputs, out_first, out_step, taps, tap_first, tap_step, in_first, in_step, direction;
};

template <bool kBackward>
__device__ inline Axis make_axis(int phase, int out_size, int kernel, int stride, int pad) {
  if (!kBackward) return {out_size, 0, 1, kernel, 0, 1, -pad, stride, 1};
  const int first = (phase + pad) % stride;
  return {phase < out_size ? (out_size - phase - 1) / stride + 1 : 0,
          phase,
          stride,
          first < kernel ? (kernel - first - 1) / stride + 1 : 0,
          first,
          stride,
          (phase + pad) / stride,
          1,
          -1};
}

// to[tap, channel, row] = weight[row * row_step + channel * channel_step + tap], with zeros to whole tiles.
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    pack_weight_kernel(T* to, const T* weight, int64_t size, int rows, int channels, int64_t row_step,
                       int64_t channel_step, int padded_rows, int padded_channels) {
  ADDP_MAX_THREADS(kTileThreads);
  const int64_t i = int64_t{blockIdx.x} * kTileThreads + threadIdx.x;
  if (i >= size) return;
  const int row = static_cast<int>(i % padded_rows), channel = static_cast<int>(i / padded_rows % padded_channels);
  const int64_t tap = i / padded_rows / padded_channels;
  to[i] = row < rows && channel < channels ? weight[row * row_step + channel * channel_step + tap] : T(0);
}

// Where a step of the sum stands: one tap and kDepth channels from `channel` on.
struct Step {
  int tap_y, tap_x, channel;
  __device__ void advance(int channels, int taps_x) {
    channel += kDepth;
    if (channel < channels) return;
    channel = 0;
    if (++tap_x < taps_x) return;
    tap_x = 0;
    ++tap_y;
  }
};

// The part of a step's operands that one thread carries from global to shared memory: four weights of one channel,
// and one pixel in several channels.
template <class T>
struct Carried {
  static constexpr int kValues = kDepth * kColumns<T> / kTileThreads;
  static constexpr int kChannelStep = kTileThreads / kColumns<T>;
  Quad<T> weights;
  T values[kValues];

  // image: channel 0 of the pixel's image; (y, x): where the pixel's patch starts, y < 0 far outside for no pixel.
  __device__ void fetch(const T* image, int y, int x, const T* weight, const Convolution& c, const Axis& v,
                        const Axis& h, const Step& step) {
    const int thread = static_cast<int>(threadIdx.x);
    const int64_t tap = int64_t{v.tap_first + step.tap_y * v.tap_step} * c.kw + h.tap_first + step.tap_x * h.tap_step;
    weights = load_quad(weight + (tap * c.padded_in + step.channel + thread / 16) * c.padded_out + thread % 16 * 4);
    y += step.tap_y * v.direction, x += step.tap_x * h.direction;
    const bool inside = y >= 0 && y < c.in_height && x >= 0 && x < c.in_width;
    const int channel = step.channel + thread / kColumns<T>;
    const int64_t plane = int64_t{c.in_height} * c.in_width;
    const T* from = image + channel * plane + int64_t{y} * c.in_width + x;
    for (int i = 0; i < kValues; ++i) {
      const bool exists = inside && channel + i * kChannelStep < c.in_channels;
      values[i] = exists ? from[i * kChannelStep * plane] : T(0);
    }
  }

  __device__ void store(Quad<T>* a, Quad<T>* b) const {
    const int thread = static_cast<int>(threadIdx.x), pixel = thread % kColumns<T>;
    a[thread] = weights;
    for (int i = 0; i < kValues; ++i) {
      const int channel = thread / kColumns<T> + i * kChannelStep;
      b[channel * (kColumns<T> / 4) + pixel / 4].v[pixel % 4] = values[i];
    }
  }
};

// Grid: runs of kColumns pixels (over all images) x tiles of output channels x phases.
template <class T, bool kBackward>
__global__ void __launch_bounds__(kTileThreads)
    convolve_kernel(T* y, const T* x, const T* weight, const T* bias, Convolution c, bool whole_quads) {
  ADDP_MAX_THREADS(kTileThreads);
  constexpr int kA = kDepth * kTileQuads, kB = kDepth * kColumns<T> / 4;
  ADDP_SHARED(Quad<T>, a, [2 * kA]);
  ADDP_SHARED(Quad<T>, b, [2 * kB]);
  const Axis v = make_axis<kBackward>(static_cast<int>(blockIdx.z) / c.stride, c.out_height, c.kh, c.stride, c.pad_top);
  const Axis h = make_axis<kBackward>(static_cast<int>(blockIdx.z) % c.stride, c.out_width, c.kw, c.stride, c.pad_left);
  const int plane = v.outputs * h.outputs, pixels = c.images * plane;
  const int64_t first = int64_t{blockIdx.x} * kColumns<T>;
  if (first >= pixels) return;

  const int own = static_cast<int>(first) + static_cast<int>(threadIdx.x) % kColumns<T>;
  const int place = own % plane;
  const T* image = x + int64_t{own / plane} * c.in_channels * c.in_height * c.in_width;
  const int patch_y = own < pixels ? place / h.outputs * v.in_step + v.in_first : -(1 << 30);
  const int patch_x = place % h.outputs * h.in_step + h.in_first;

  T sum[4][4 * kColumnQuads<T>] = {};
  const int steps = v.taps * h.taps * (c.padded_in / kDepth);
  const T* tile_weight = weight + blockIdx.y * kTileSide;
  Carried<T> carried;
  Step next{0, 0, 0};
  if (steps > 0) {
    carried.fetch(image, patch_y, patch_x, tile_weight, c, v, h, next);
    carried.store(a, b);
  }
  __syncthreads();
  for (int step = 0; step < steps; ++step) {
    const int now = step % 2, depth = c.in_channels - next.channel;
    next.advance(c.in_channels, h.taps);
    if (step + 1 < steps) carried.fetch(image, patch_y, patch_x, tile_weight, c, v, h, next);
    multiply_tile<kColumnQuads<T>, kDepth>(sum, a + now * kA, kTileQuads, b + now * kB, kColumns<T> / 4,
                                           depth < kDepth ? depth : kDepth);
    if (step + 1 < steps) carried.store(a + (1 - now) * kA, b + (1 - now) * kB);
    __syncthreads();
  }

  const int64_t out_plane = int64_t{c.out_height} * c.out_width;
  const int channel = static_cast<int>(blockIdx.y) * kTileSide + tile_row() * 4;
  const int channels = c.out_channels - channel;
  T add[4];
  for (int r = 0; r < 4; ++r) add[r] = bias != nullptr && r < channels ? bias[channel + r] : T(0);
  for (int q = 0; q < kColumnQuads<T>; ++q) {
    const int pixel = static_cast<int>(first) + 4 * (tile_column() + 16 * q);
    if (!kBackward && whole_quads) {
      if (pixel >= pixels) continue;
      T* at = y + (int64_t{pixel / plane} * c.out_channels + channel) * out_plane + pixel % plane;
      for (int r = 0; r < 4; ++r) {
        if (r >= channels) continue;
        Quad<T> out;
        for (int e = 0; e < 4; ++e) out.v[e] = sum[r][4 * q + e] + add[r];
        store_quad(at + r * out_plane, out);
      }
      continue;
    }
    for (int e = 0; e < 4; ++e) {
      if (pixel + e >= pixels) continue;
      const int at_plane = (pixel + e) % plane;
      const int64_t row = v.out_first + at_plane / h.outputs * v.out_step;
      const int64_t column = h.out_first + at_plane % h.outputs * h.out_step;
      T* at = y + (int64_t{(pixel + e) / plane} * c.out_channels + channel) * out_plane + row * c.out_width + column;
      for (int r = 0; r < 4; ++r) {
        if (r < channels) at[r * out_plane] = sum[r][4 * q + e] + add[r];
      }
    }
  }
}

// Packs the weights and convolves. Element (row, channel, tap) of the weights is weight[row * row_step + ...].
template <class T, bool kBackward>
void convolve(Cuda dev, T* y, const T* x, const T* weight, const T* bias, Convolution c, int64_t row_step,
              int64_t channel_step) {
  c.padded_in = static_cast<int>(ceil_div(c.in_channels, kDepth) * kDepth);
  c.padded_out = static_cast<int>(ceil_div(c.out_channels, kTileSide) * kTileSide);
  const int64_t size = int64_t{c.kh} * c.kw * c.padded_in * c.padded_out;
  const Scratch packed(dev, size * static_cast<int64_t>(sizeof(T)));
  launch(pack_weight_kernel<T>, {grid_of(ceil_div(size, kTileThreads)), kTileThreads, 0, dev.stream}, packed.as<T>(),
         weight, size, c.out_channels, c.in_channels, row_step, channel_step, c.padded_out, c.padded_in);
  const int step = kBackward ? c.stride : 1;
  const int64_t pixels = c.images * ceil_div(c.out_height, step) * ceil_div(c.out_width, step);  // of the largest phase
  const bool whole_quads = int64_t{c.out_height} * c.out_width % 4 == 0 && aligned(y);
  launch(convolve_kernel<T, kBackward>,
         {grid_of(ceil_div(pixels, kColumns<T>), c.padded_out / kTileSide, step * step), kTileThreads, 0, dev.stream},
         y, x, packed.as<T>(), bias, c, whole_quads);
}

// ---- Gradient of the weights ----

template <class T>
constexpr int kPixelStep = 128 / sizeof(T);  // pixels per step: a whole line of memory
template <class T>
constexpr int kSumQuads = kPixelStep<T>* kPaddedQuads;  // size of an operand in shared memory

// A thread's share of a step: one pixel, and of the 64 rows of dy and of the 64 (ci, tap) of x a quarter of a quad
// each.
template <class T>
struct PixelShare {
  static constexpr int kQuads = kPixelStep<T> * kTileQuads / kTileThreads, kGroups = kTileThreads / kPixelStep<T>;
  int offset[4 * kQuads], tap_y[4 * kQuads], tap_x[4 * kQuads];  // of x: element, row and column relative to the patch
  Quad<T> left[kQuads], right[kQuads];

  __device__ int group() const { return static_cast<int>(threadIdx.x) / kPixelStep<T>; }
  __device__ int row(int i) const { return 4 * (group() + i / 4 * kGroups) + i % 4; }

  __device__ PixelShare(const ConvShape& s, int first_column) {
    const int taps = static_cast<int>(s.kh * s.kw), kw = static_cast<int>(s.kw);
    for (int i = 0; i < 4 * kQuads; ++i) {
      const int column = first_column + row(i), tap = column % taps;
      const bool exists = column < s.Ci * taps;
      tap_y[i] = exists ? tap / kw : 1 << 30, tap_x[i] = tap % kw;
      offset[i] = static_cast<int>((column / taps * s.Hi + tap / kw) * s.Wi + tap_x[i]);
    }
  }

  __device__ void fetch(const T* dy, const T* x, const ConvShape& s, int first_row, int pixel, int end) {
    const int plane = static_cast<int>(s.Ho * s.Wo), width = static_cast<int>(s.Wo), place = pixel % plane;
    const int64_t image = pixel / plane;
    const int y = static_cast<int>(place / width * s.stride - s.pad_top);
    const int column = static_cast<int>(place % width * s.stride - s.pad_left);
    const T* rows = dy + (image * s.Co + first_row) * plane + place;
    const T* patch = x + image * s.Ci * s.Hi * s.Wi + y * s.Wi + column;
    for (int i = 0; i < 4 * kQuads; ++i) {
      const bool inside =
          y + tap_y[i] >= 0 && y + tap_y[i] < s.Hi && column + tap_x[i] >= 0 && column + tap_x[i] < s.Wi;
      left[i / 4].v[i % 4] = pixel < end && first_row + row(i) < s.Co ? rows[int64_t{row(i)} * plane] : T(0);
      right[i / 4].v[i % 4] = pixel < end && inside ? patch[offset[i]] : T(0);
    }
  }

  __device__ void store(Quad<T>* a, Quad<T>* b) const {
    const int at = static_cast<int>(threadIdx.x) % kPixelStep<T> * kPaddedQuads + group();
    for (int q = 0; q < kQuads; ++q) {
      a[at + q * kGroups] = left[q];
      b[at + q * kGroups] = right[q];
    }
  }
};

// sums[part, co, (ci, tap)] = the sum over the part's pixels. Grid: tiles of (ci, tap) x tiles of co x parts.
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    weight_sums_kernel(T* sums, const T* dy, const T* x, ConvShape s, int pixels, int part_pixels) {
  ADDP_MAX_THREADS(kTileThreads);
  ADDP_SHARED(Quad<T>, a, [2 * kSumQuads<T>]);
  ADDP_SHARED(Quad<T>, b, [2 * kSumQuads<T>]);
  const int first_column = static_cast<int>(blockIdx.x) * kTileSide,
            first_row = static_cast<int>(blockIdx.y) * kTileSide;
  const int begin = static_cast<int>(blockIdx.z) * part_pixels;
  const int end = pixels - begin < part_pixels ? pixels : begin + part_pixels;
  const int lane = static_cast<int>(threadIdx.x) % kPixelStep<T>;
  PixelShare<T> share(s, first_column);
  T sum[4][4] = {};
  share.fetch(dy, x, s, first_row, begin + lane, end);
  share.store(a, b);
  __syncthreads();
  int now = 0;
  for (int pixel = begin; pixel < end; pixel += kPixelStep<T>, now = 1 - now) {
    const int next = pixel + kPixelStep<T>;
    if (next < end) share.fetch(dy, x, s, first_row, next + lane, end);
    multiply_tile<1, kPixelStep<T>>(sum, a + now * kSumQuads<T>, kPaddedQuads, b + now * kSumQuads<T>, kPaddedQuads,
                                    end < next ? end - pixel : kPixelStep<T>);
    if (next < end) share.store(a + (1 - now) * kSumQuads<T>, b + (1 - now) * kSumQuads<T>);
    __syncthreads();
  }
  const int64_t columns = s.Ci * s.kh * s.kw;
  T* part = sums + blockIdx.z * s.Co * columns;
  for (int r = 0; r < 4; ++r) {
    const int64_t co = first_row + tile_row() * 4 + r;
    for (int e = 0; e < 4; ++e) {
      const int64_t column = first_column + tile_column() * 4 + e;
      if (co < s.Co && column < columns) part[co * columns + column] = sum[r][e];
    }
  }
}

// y[i] = sum over parts, in order, of sums[part, i].
template <class T>
__global__ void __launch_bounds__(kTileThreads) add_parts_kernel(T* y, const T* sums, int64_t n, int parts) {
  ADDP_MAX_THREADS(kTileThreads);
  const int64_t i = int64_t{blockIdx.x} * kTileThreads + threadIdx.x;
  if (i >= n) return;
  T sum = sums[i];
  for (int part = 1; part < parts; ++part) sum += sums[part * n + i];
  y[i] = sum;
}

int narrow(int64_t n) {
  check(n >= 0 && n < (int64_t{1} << 30), "conv2d on the device: an extent or number of pixels is too large: ", n);
  return static_cast<int>(n);
}

// Sizes that the kernels hold in 32 bits.
void check_sizes(const ConvShape& s) {
  narrow(s.B * s.Ho * s.Wo), narrow(s.B * s.Hi * s.Wi), narrow(s.Ci * s.Hi * s.Wi), narrow(s.Ci * s.kh * s.kw);
  check(s.stride < 256, "conv2d on the device: stride must be less than 256, is ", s.stride);
}

}  // namespace

template <class T>
void conv2d_fwd(Cuda dev, T* y, const T* x, const T* weight, const T* bias, const ConvShape& s) {
  check_sizes(s);
  const int64_t taps = s.kh * s.kw;
  const Convolution c{narrow(s.B),
                      narrow(s.Ci),
                      narrow(s.Hi),
                      narrow(s.Wi),
                      narrow(s.Co),
                      narrow(s.Ho),
                      narrow(s.Wo),
                      narrow(s.kh),
                      narrow(s.kw),
                      narrow(s.stride),
                      narrow(s.pad_top),
                      narrow(s.pad_left),
                      0,
                      0};
  convolve<T, false>(dev, y, x, weight, bias, c, s.Ci * taps, taps);
}

template <class T>
void conv2d_bwd_data(Cuda dev, T* dx, const T* dy, const T* weight, const ConvShape& s) {
  check_sizes(s);
  const int64_t taps = s.kh * s.kw;
  const Convolution c{narrow(s.B),
                      narrow(s.Co),
                      narrow(s.Ho),
                      narrow(s.Wo),
                      narrow(s.Ci),
                      narrow(s.Hi),
                      narrow(s.Wi),
                      narrow(s.kh),
                      narrow(s.kw),
                      narrow(s.stride),
                      narrow(s.pad_top),
                      narrow(s.pad_left),
                      0,
                      0};
  convolve<T, true>(dev, dx, dy, weight, nullptr, c, taps, s.Ci * taps);
}

template <class T>
void conv2d_bwd_weight(Cuda dev, T* dweight, const T* dy, const T* x, const ConvShape& s) {
  check_sizes(s);
  const int64_t columns = s.Ci * s.kh * s.kw, size = s.Co * columns, pixels = s.B * s.Ho * s.Wo;
  const int64_t column_tiles = ceil_div(columns, kTileSide), row_tiles = ceil_div(s.Co, kTileSide);
  const int64_t steps = ceil_div(pixels, kPixelStep<T>);
  const int64_t wanted = ceil_div(kWantedBlocks, column_tiles * row_tiles), possible = ceil_div(steps, kFewestSteps);
  const int64_t part_steps = ceil_div(steps, wanted < possible ? wanted : possible);
  const int64_t parts = ceil_div(steps, part_steps);
  const Scratch scratch(dev, parts > 1 ? parts * size * static_cast<int64_t>(sizeof(T)) : 0);
  T* sums = parts > 1 ? scratch.as<T>() : dweight;
  launch(weight_sums_kernel<T>, {grid_of(column_tiles, row_tiles, parts), kTileThreads, 0, dev.stream}, sums, dy, x, s,
         narrow(pixels), narrow(part_steps * kPixelStep<T>));
  if (parts == 1) return;
  launch(add_parts_kernel<T>, {grid_of(ceil_div(size, kTileThreads)), kTileThreads, 0, dev.stream}, dweight, sums, size,
         narrow(parts));
}

#define INSTANTIATE(T)                                                                \
  template void conv2d_fwd(Cuda, T*, const T*, const T*, const T*, const ConvShape&); \
  template void conv2d_bwd_data(Cuda, T*, const T*, const T*, const ConvShape&);      \
  template void conv2d_bwd_weight(Cuda, T*, const T*, const T*, const ConvShape&);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
