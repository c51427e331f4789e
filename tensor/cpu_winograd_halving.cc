// 4x4 convolutions of stride 2 by Winograd's method. Output i reads the pixels 2 i - pad + k: the even taps k = 0, 2
// see every second pixel, the odd ones 1, 3 the pixels between. So with the input dealt out to four images, by the
// parity of row and column, and the kernel likewise,
//   forward              is one 2x2 convolution of stride 1 over four times the channels,
//   gradient of weights  is that one's gradient,
//   gradient of data     is a 2x2 convolution of dy for each of the four images of dx.
#include <algorithm>

#include "tensor/allocator.h"
#include "tensor/cpu_pairs.h"
#include "tensor/cpu_winograd.h"
#include "tensor/parallel.h"

namespace addp::cpu {
namespace {

constexpr int kParts = 4;  // part 2 r + c: of the rows and columns of parity r and c

template <class T>
struct Buffer {
  explicit Buffer(int64_t size)
      : bytes(size * static_cast<int64_t>(sizeof(T))), data(static_cast<T*>(allocate(bytes))) {}
  ~Buffer() { deallocate(data, bytes); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  int64_t bytes;
  T* data;
};

// The convolution over the parts, channel part * Ci + ci: one row and column more than outputs, no padding.
ConvShape over_parts(const ConvShape& s) {
  return {s.B, kParts * s.Ci, s.Ho + 1, s.Wo + 1, s.Co, 2, 2, 1, 0, 0, s.Ho, s.Wo};
}

// even[j], odd[j] = from[2 j - pad], from[2 j + 1 - pad] for j < count, 0 outside of [0, size).
template <class T>
void deal_out(T* even, T* odd, int64_t count, const T* from, int64_t size, int64_t pad) {
  using Pairs = Pairs<T>;
  int64_t j = 0;
  const auto at = [&](int64_t i) { return i >= 0 && i < size ? from[i] : T(0); };
  const auto slowly = [&](int64_t end) {
    for (; j < end; ++j) even[j] = at(2 * j - pad), odd[j] = at(2 * j + 1 - pad);
  };
  slowly(std::min(count, (pad + 1) / 2));
  for (; j + Pairs::n <= count && 2 * (j + Pairs::n) - pad <= size; j += Pairs::n) {
    const auto v = Pairs::load_wide(from + 2 * j - pad);
    Pairs::store(even + j, Pairs::first(v));
    Pairs::store(odd + j, Pairs::second(v));
  }
  slowly(count);
}

// parts [B, part, Ci, Ho + 1, Wo + 1] of x.
template <class T>
void split_images(T* parts, const T* x, const ConvShape& s) {
  const int64_t H = s.Ho + 1, W = s.Wo + 1;
  parallel_for(s.B * s.Ci, [&](int64_t task) {
    const int64_t b = task / s.Ci, c = task % s.Ci;
    const T* from = x + task * s.Hi * s.Wi;
    for (int64_t i = 0; i < 2 * H; ++i) {
      T* to = parts + (((b * kParts + i % 2 * 2) * s.Ci + c) * H + i / 2) * W;
      const int64_t row = i - s.pad_top;
      const bool inside = row >= 0 && row < s.Hi;
      deal_out(to, to + s.Ci * H * W, W, inside ? from + row * s.Wi : from, inside ? s.Wi : 0, s.pad_left);
    }
  });
}

// Part (r, c) of the kernels: to[(part, j, k)] = weight[2 j + r, 2 k + c], [Co, part, Ci, 2, 2] of [Co, Ci, 4, 4], or
// with `back` the reverse.
template <bool back, class T, class Plain>
void split_kernels(T* parts, Plain* weight, const ConvShape& s) {
  parallel_for(s.Co, [&](int64_t co) {
    for (int64_t ci = 0; ci < s.Ci; ++ci) {
      Plain* kernel = weight + (co * s.Ci + ci) * 16;
      for (int64_t tap = 0; tap < 16; ++tap) {
        const int64_t y = tap / 4, x = tap % 4, part = y % 2 * 2 + x % 2;
        T& entry = parts[((co * kParts + part) * s.Ci + ci) * 4 + y / 2 * 2 + x / 2];
        if constexpr (back) kernel[tap] = entry;
        else entry = kernel[tap];
      }
    }
  });
}

// Along one axis, the pixels of parity `part` in the backward pass: pixel 2 i + part gets dy[i + 1 - pad] times tap
// `first`, and dy[i - pad] times tap first + 2.
struct Axis {
  Axis(int64_t part, int64_t padding) : first((part + padding) % 2), pad(1 - (part + padding) / 2) {}
  int64_t first, pad;
};

}  // namespace

template <class T>
void winograd_halving(T* y, const T* x, const T* weight, const T* bias, const ConvShape& s) {
  const ConvShape t = over_parts(s);
  const Buffer<T> parts(t.B * t.Ci * t.Hi * t.Wi), kernels(t.Co * t.Ci * 4);
  split_images(parts.data, x, s);
  split_kernels<false>(kernels.data, weight, s);
  winograd<T>(y, parts.data, kernels.data, t.Ci * 4, 4, false, bias, t);
}

template <class T>
void winograd_halving_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s) {
  const ConvShape t = over_parts(s);
  const Buffer<T> parts(t.B * t.Ci * t.Hi * t.Wi), kernels(t.Co * t.Ci * 4);
  split_images(parts.data, x, s);
  winograd_bwd_weight<T>(kernels.data, dy, parts.data, t);
  split_kernels<true>(kernels.data, dweight, s);
}

template <class T>
void winograd_halving_bwd_data(T* dx, const T* dy, const T* weight, const ConvShape& s) {
  using Pairs = Pairs<T>;
  const int64_t H = (s.Hi + 1) / 2, W = (s.Wi + 1) / 2, plane = H * W;
  const Buffer<T> parts(kParts * s.B * s.Ci * plane), kernels(kParts * s.Co * s.Ci * 4);
  for (int part = 0; part < kParts; ++part) {
    const Axis vertical(part / 2, s.pad_top), horizontal(part % 2, s.pad_left);
    T* const kernel = kernels.data + part * s.Co * s.Ci * 4;  // [Co, Ci, 2, 2], read in reversed order
    parallel_for(s.Co, [&](int64_t co) {
      for (int64_t i = co * s.Ci * 4; i < (co + 1) * s.Ci * 4; ++i) {
        kernel[i] = weight[i / 4 * 16 + (vertical.first + i % 4 / 2 * 2) * 4 + horizontal.first + i % 2 * 2];
      }
    });
    winograd<T>(parts.data + part * s.B * s.Ci * plane, dy, kernel, 4, s.Ci * 4, true, nullptr,
                {s.B, s.Co, s.Ho, s.Wo, s.Ci, 2, 2, 1, vertical.pad, horizontal.pad, H, W});
  }
  parallel_for(s.B * s.Ci, [&](int64_t task) {
    for (int64_t row = 0; row < s.Hi; ++row) {
      const T* even = parts.data + (row % 2 * 2 * s.B * s.Ci + task) * plane + row / 2 * W;
      const T* odd = even + s.B * s.Ci * plane;
      T* to = dx + (task * s.Hi + row) * s.Wi;
      int64_t j = 0;
      for (; 2 * (j + Pairs::n) <= s.Wi; j += Pairs::n) {
        Pairs::store(to + 2 * j, Pairs::interleave(Pairs::load(even + j), Pairs::load(odd + j)));
      }
      for (; 2 * j < s.Wi; ++j) {
        to[2 * j] = even[j];
        if (2 * j + 1 < s.Wi) to[2 * j + 1] = odd[j];
      }
    }
  });
}

#define ADDP_INSTANTIATE(T)                                                           \
  template void winograd_halving(T*, const T*, const T*, const T*, const ConvShape&); \
  template void winograd_halving_bwd_data(T*, const T*, const T*, const ConvShape&);  \
  template void winograd_halving_bwd_weight(T*, const T*, const T*, const ConvShape&);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)
#undef ADDP_INSTANTIATE

}  // namespace addp::cpu
