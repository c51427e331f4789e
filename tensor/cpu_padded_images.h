// Images with a border of zeros, as the direct convolutions of cpu_conv.cc read them.
#pragma once
#include <algorithm>

#include "tensor/cpu_pairs.h"
#include "tensor/cpu_tile.h"
#include "tensor/dispatch.h"

namespace addp::cpu {

using kernel::ConvShape;

// Whether the patches of a convolution are the pixels of its input as it lies.
inline bool pointwise(const ConvShape& s) {
  return s.kh == 1 && s.kw == 1 && s.stride == 1 && s.pad_top == 0 && s.pad_left == 0 && s.Ho == s.Hi && s.Wo == s.Wi;
}

// Zero-padded rows of all channels of some images, [Ci, images, height, row_size]. The columns of a row are dealt out
// to `phases` parts, column x to place x / phases of part x % phases: with phases = stride, what a tap reads lies side
// by side.
template <class T>
struct PaddedImages {
  T* data;
  int64_t images, height, phases, part_size, row_size;

  // `width` columns from -pad_left on.
  PaddedImages(int64_t images, int64_t height, int64_t width, int64_t phases)
      : data(nullptr),
        images(images),
        height(height),
        phases(phases),
        part_size(ceil_div(width, phases)),
        row_size(part_size * phases) {}
  int64_t channel_size() const { return images * height * row_size; }
  int64_t place(int64_t column) const { return column % phases * part_size + column / phases; }

  // Image i gets x's rows from `first` on, which may lie outside it.
  void fill(int64_t i, const T* x, const ConvShape& s, int64_t first) const {
    const int64_t begin = std::max<int64_t>(first, 0), end = std::min(first + height, s.Hi);
    const int64_t begin_x = std::max<int64_t>(-s.pad_left, 0), end_x = std::min(s.Wi, row_size - s.pad_left);
    for (int64_t c = 0; c < s.Ci; ++c) {
      T* const image = data + c * channel_size() + i * height * row_size;
      std::fill_n(image, height * row_size, T(0));
      for (int64_t r = begin; r < end; ++r) {
        T* to = image + (r - first) * row_size;
        const T* from = x + (c * s.Hi + r) * s.Wi;
        // Of the next channel: a jump that no hardware foresees.
        for (int64_t j = 0; j < s.Wi && c + 1 < s.Ci; j += kRegisterLanes<T>)
          __builtin_prefetch(from + s.Hi * s.Wi + j);
        if (phases == 1) {
          copy_short(to + s.pad_left + begin_x, from + begin_x, end_x - begin_x);
        } else {
          const int64_t done = phases == 2 && s.pad_left >= 0 ? fill_pairs(to, from, s) : 0;
          for (int64_t phase = 0; done < s.Wi && phase < phases; ++phase) {
            fill_part(to + phase * part_size, from, phase - s.pad_left, done, s.Wi);
          }
        }
      }
    }
  }

 private:
  // to[j] = from[start + j * phases] where that exists and does not come before from[first].
  void fill_part(T* to, const T* from, int64_t start, int64_t first, int64_t Wi) const {
    const int64_t begin = ceil_div(std::max<int64_t>(first - start, 0), phases);
    const int64_t end = std::min(part_size, ceil_div(std::max<int64_t>(Wi - start, 0), phases));
    for (int64_t j = begin; j < end; ++j) to[j] = from[start + j * phases];
  }

  // Deals out whole vectors of two phases. Returns how many columns of the image that were.
  int64_t fill_pairs(T* to, const T* from, const ConvShape& s) const {
    using Pairs = Pairs<T>;
    const int64_t odd = s.pad_left % 2;  // the part of the image's even columns
    T* even_columns = to + odd * part_size + s.pad_left / 2;
    T* odd_columns = to + (1 - odd) * part_size + (s.pad_left + 1) / 2;
    const int64_t room = part_size - (s.pad_left + 1) / 2;  // places left in either part
    const int64_t end = std::min(s.Wi / 2, room);
    int64_t j = 0;
    for (; j + 2 * Pairs::n <= end; j += 2 * Pairs::n) {
      const auto v = Pairs::load_wide(from + 2 * j), w = Pairs::load_wide(from + 2 * j + 2 * Pairs::n);
      Pairs::store(even_columns + j, Pairs::first(v, w));
      Pairs::store(odd_columns + j, Pairs::second(v, w));
    }
    for (; j + Pairs::n <= end; j += Pairs::n) {
      const auto v = Pairs::load_wide(from + 2 * j);
      Pairs::store(even_columns + j, Pairs::first(v));
      Pairs::store(odd_columns + j, Pairs::second(v));
    }
    return 2 * j;
  }
};

}  // namespace addp::cpu
