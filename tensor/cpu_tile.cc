// The register tile behind every dense product: kTileRows x kPanelVectors accumulators, or kStripRows x kStripVectors.
#include "tensor/cpu_tile.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>

#include "tensor/cpu_math.h"

namespace addp::cpu {
namespace {

// Where a tile finds the left operand. A cursor stands at one step: at<i>() is row i's entry, next() goes on. Either
// the rows of a step are adjacent, along a walk ...
template <class T>
struct Packed {
  const T* a;
  Walk walk;

  struct Cursor {
    const T* p;
    int64_t step;
    template <int i>
    T at() const {
      return p[i];
    }
    void next() { p += step; }
  };
  int64_t blocks() const { return walk.blocks; }
  int64_t runs() const { return walk.outer; }
  int64_t steps() const { return walk.inner; }
  template <int rows>
  Cursor run(int64_t block, int64_t r) const {
    return {a + block * walk.a_block + r * walk.a_run, walk.a_step};
  }
};

// ... or steps follow each other, kPanelRows apart: two words instead of seven, for short products feel what is written
// for each of them ...
template <class T>
struct Dense {
  const T* a;
  int64_t count;

  struct Cursor {
    const T* p;
    template <int i>
    T at() const {
      return p[i];
    }
    void next() { p += kPanelRows<T>; }
  };
  int64_t blocks() const { return 1; }
  int64_t runs() const { return 1; }
  int64_t steps() const { return count; }
  template <int rows>
  Cursor run(int64_t, int64_t) const {
    return {a};
  }
};

// ... or the rows are `stride` apart and the steps are adjacent. Five rows share a pointer, for an address may hold one
// multiple of the stride; the empty asm keeps the compiler from making a pointer of each row, more than there are
// registers.
template <class T>
struct Rows {
  const T* a;
  int64_t count, stride;

  static constexpr int kShared = 5;
  struct Cursor {
    const T *p0, *p1, *p2;
    int64_t stride;
    template <int i>
    T at() const {
      return (i < kShared ? p0 : i < 2 * kShared ? p1 : p2)[i % kShared * stride];
    }
    void next() {
      ++p0, ++p1, ++p2;
      asm("" : "+r"(p0), "+r"(p1), "+r"(p2));
    }
  };
  int64_t blocks() const { return 1; }
  int64_t runs() const { return 1; }
  int64_t steps() const { return count; }
  template <int rows>
  Cursor run(int64_t, int64_t) const {
    static_assert(rows <= 3 * kShared);
    return {a, a + (rows > kShared ? kShared * stride : 0), a + (rows > 2 * kShared ? 2 * kShared * stride : 0),
            stride};
  }
};

// Where a tile finds the right operand: vector<v>() is a step's vector v, next() goes on. Either packed ...
template <class T>
struct Panel {
  const T* b;

  template <int v>
  Register<T> vector() const {
    return load_register(b + v * kRegisterLanes<T>);
  }
  void next() { b += kPanelCols<T>; }
};

// ... or Shifted.
template <class T, class Left, class Right>
using TileFunction = void (*)(T* c, int64_t ldc, const Left& left, const Right& right, int64_t cols, bool accumulate,
                              Bias<T> bias);

template <int vectors, class V, class T>
[[gnu::always_inline]] inline void add_products(V (&sum)[vectors], T x, const V (&right)[vectors]) {
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) sum[v] += x * right[v];
}

// f(row i of c, i) for all rows, one after the other: the empty asm keeps the compiler from computing all addresses
// beforehand, more than there are registers.
template <int rows, class T, class F>
[[gnu::always_inline]] inline void for_rows(T* c, int64_t ldc, F f) {
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i, c += ldc) {
    asm("" : "+r"(c));
    f(c, i);
  }
}

template <class T, class Left, class Right, int rows, int vectors>
void tile(T* c, int64_t ldc, const Left& left, const Right& from, int64_t cols, bool accumulate, Bias<T> bias) {
  constexpr int n = kRegisterLanes<T>, last = vectors - 1;
  Right source = from;
  Register<T> sum[rows][vectors] = {};
  for_rows<rows>(c, ldc, [&](T* to, int) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) __builtin_prefetch(to + v * n, 1);
  });
  for (int64_t block = 0; block < left.blocks(); ++block) {
    for (int64_t r = 0; r < left.runs(); ++r) {
      auto cursor = left.template run<rows>(block, r);
      for (int64_t s = 0; s < left.steps(); ++s, cursor.next(), source.next()) {
        // Folds, for under the sanitizers GCC 12 loses the counter of an unrolled loop here.
        Register<T> right[vectors];
        [&]<size_t... V>(std::index_sequence<V...>) { ((right[V] = source.template vector<V>()), ...); }
        (std::make_index_sequence<vectors>());
        [&]<size_t... I>(std::index_sequence<I...>) {
          (add_products<vectors>(sum[I], cursor.template at<I>(), right), ...);
        }
        (std::make_index_sequence<rows>());
      }
    }
  }
  // The last vector of each row by `lanes`, the others whole.
  const auto finish = [&](auto lanes) {
    const auto load_lanes = [&](const T* p, int v) {
      return v < last ? load_register(p + v * n) : load<T>(p + v * n, lanes);
    };
    if (bias.column != nullptr) {
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[i][v] += bias.column[i];
      }
    }
    if (bias.row != nullptr) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const Register<T> shift = load_lanes(bias.row, v);
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i) sum[i][v] += shift;
      }
    }
    if (accumulate) {
      for_rows<rows>(c, ldc, [&](T* to, int i) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[i][v] += load_lanes(to, v);
      });
    }
    for_rows<rows>(c, ldc, [&](T* to, int i) {
#pragma GCC unroll 4
      for (int v = 0; v < last; ++v) store_register(to + v * n, sum[i][v]);
      store<T>(to + last * n, lanes, sum[i][last]);
    });
  };
  if (cols == vectors * n) finish(AllLanes<T>{});
  else finish(cols - last * n);
}

// All heights from 1 on for one width in vectors.
template <class T, class Left, class Right, int vectors, size_t... I>
constexpr std::array<TileFunction<T, Left, Right>, sizeof...(I)> tiles_of_width(std::index_sequence<I...>) {
  return {tile<T, Left, Right, static_cast<int>(I) + 1, vectors>...};
}
// All widths from 1 on, for heights up to `rows`.
template <class T, class Left, class Right, int rows, size_t... V>
constexpr auto all_tiles(std::index_sequence<V...>) {
  return std::array{tiles_of_width<T, Left, Right, static_cast<int>(V) + 1>(std::make_index_sequence<rows>())...};
}

template <int vectors, int heights, class T, class Left, class Right>
void multiply(T* c, int64_t ldc, const Left& left, const Right& right, int64_t rows, int64_t cols, bool accumulate,
              Bias<T> bias) {
  static constexpr auto tiles = all_tiles<T, Left, Right, heights>(std::make_index_sequence<vectors>());
  tiles[ceil_div(cols, kRegisterLanes<T>) - 1][rows - 1](c, ldc, left, right, cols, accumulate, bias);
}

struct Buffer {
  ~Buffer() { std::free(data); }
  void* data = nullptr;
  int64_t bytes = 0;
};

}  // namespace

template <class T>
void multiply_tile(T* c, int64_t ldc, const T* a, const Walk& walk, const T* b, int64_t rows, int64_t cols,
                   bool accumulate, Bias<T> bias) {
  multiply<kPanelVectors, kTileRows>(c, ldc, Packed<T>{a, walk}, Panel<T>{b}, rows, cols, accumulate, bias);
}
template <class T>
void multiply_rows(T* c, int64_t ldc, const T* a, int64_t lda, int64_t steps, const T* b, int64_t rows, int64_t cols,
                   bool accumulate, Bias<T> bias) {
  multiply<kPanelVectors, kTileRows>(c, ldc, Rows<T>{a, steps, lda}, Panel<T>{b}, rows, cols, accumulate, bias);
}
template <class T>
void multiply_strip(T* c, int64_t ldc, const T* a, int64_t steps, const Shifted<T>& b, int64_t rows, int64_t cols,
                    bool accumulate, const T* column) {
  const Dense<T> left{a, steps};
  if (rows <= kStripRows) {
    multiply<kStripVectors, kStripRows, T>(c, ldc, left, b, rows, cols, accumulate, {nullptr, column});
  } else {
    multiply<kPanelVectors, kTileRows, T>(c, ldc, left, b, rows, cols, accumulate, {nullptr, column});
  }
}

#define ADDP_INSTANTIATE(T)                                                                                          \
  template void multiply_tile(T*, int64_t, const T*, const Walk&, const T*, int64_t, int64_t, bool, Bias<T>);        \
  template void multiply_strip(T*, int64_t, const T*, int64_t, const Shifted<T>&, int64_t, int64_t, bool, const T*); \
  template void multiply_rows(T*, int64_t, const T*, int64_t, int64_t, const T*, int64_t, int64_t, bool, Bias<T>);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)
#undef ADDP_INSTANTIATE

void* scratch_bytes(Slot slot, int64_t bytes) {
  static thread_local Buffer buffers[2];
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (buffer.bytes < bytes) {
    std::free(buffer.data);
    buffer.bytes = 0;
    buffer.data = std::aligned_alloc(4096, ceil_div(bytes, 4096) * 4096);
    if (buffer.data == nullptr) throw std::bad_alloc();
    buffer.bytes = bytes;
  }
  return buffer.data;
}

}  // namespace addp::cpu
