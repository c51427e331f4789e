// What the dense CPU kernels (matmul, convolution, attention) share: a register-tiled product of packed panels, the
// packing, and per-thread scratch memory. Vectors are those of GCC, as wide as the instruction set that is compiled
// for, so one source serves AVX-512, AVX2 and SSE, float and double. Who packs what, and which loops run in parallel,
// is up to the kernels.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace addp::cpu {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kTileRows = 14, kPanelVectors = 2;  // 28 accumulators, 2 of B: of 32 registers
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kTileRows = 6, kPanelVectors = 2;  // 12 accumulators, 2 of B, 1 of A: of 16 registers
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kTileRows = 2, kPanelVectors = 4;
#endif

inline constexpr int kStripRows = 3, kStripVectors = 4;  // a lower, wider tile, for few rows

template <class T>
struct RegisterOf;
template <>
struct RegisterOf<float> {
  typedef float Type __attribute__((vector_size(kVectorBytes)));
  typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t Index __attribute__((vector_size(kVectorBytes)));
};
template <>
struct RegisterOf<double> {
  typedef double Type __attribute__((vector_size(kVectorBytes)));
  typedef double Unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t Index __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Register = typename RegisterOf<T>::Type;

template <class T>
inline constexpr int kRegisterLanes = kVectorBytes / static_cast<int>(sizeof(T));
template <class T>
inline constexpr int kPanelCols = kPanelVectors* kRegisterLanes<T>;  // width of a panel of B, 64 bytes or more
template <class T>
inline constexpr int kPanelRows =
    (kTileRows + kRegisterLanes<T> - 1) / kRegisterLanes<T>* kRegisterLanes<T>;  // step of a packed tile of A

template <class T>
inline Register<T> load_register(const T* p) {
  return *reinterpret_cast<const typename RegisterOf<T>::Unaligned*>(p);
}
template <class T>
inline void store_register(T* p, Register<T> v) {
  *reinterpret_cast<typename RegisterOf<T>::Unaligned*>(p) = v;
}
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Part i of n when a range of `total` is split as evenly as possible.
struct Part {
  Part(int64_t total, int64_t n, int64_t i) : begin(total * i / n), size(total * (i + 1) / n - begin) {}
  int64_t begin, size;
};

// How the product walks along the summed dimension: `blocks` of `outer` runs of `inner` steps. A step moves `a` by
// a_step; each run starts a_run after the one before, each block a_block. B is always dense.
struct Walk {
  int64_t inner, a_step;
  int64_t outer = 1, a_run = 0;
  int64_t blocks = 1, a_block = 0;
};

// What a tile adds to the product: a row [cols] to each of its rows, a column [rows] to each of its columns; or null.
template <class T>
struct Bias {
  const T *row = nullptr, *column = nullptr;
};

// c[i, j] = sum over steps s of a[s, i] * b[s, j], or += when accumulate, for i < rows <= kTileRows and
// j < cols <= kPanelCols. a: the rows of a step are adjacent; b: [steps, kPanelCols], of which only the first vectors
// that hold cols columns are read; c: row stride ldc.
template <class T>
void multiply_tile(T* c, int64_t ldc, const T* a, const Walk& walk, const T* b, int64_t rows, int64_t cols,
                   bool accumulate, Bias<T> bias = {});

// The same with rows of a as they lie in a matrix: entry (s, i) is a[i * lda + s].
template <class T>
void multiply_rows(T* c, int64_t ldc, const T* a, int64_t lda, int64_t steps, const T* b, int64_t rows, int64_t cols,
                   bool accumulate, Bias<T> bias = {});

// A right operand that is not packed: columns [v n, (v + 1) n), n = kRegisterLanes, of step s lie at start[v] +
// offset[s].
template <class T>
struct Shifted {
  const T* start[kStripVectors];
  const int64_t* offset;

  template <int v>
  Register<T> vector() const {
    return load_register(start[v] + *offset);
  }
  void next() { ++offset; }
};

// The same product with such a b, and a bias's column or null. a is a packed tile, [steps, kPanelRows];
// cols <= kPanelCols, or <= kStripVectors * n where rows <= kStripRows.
template <class T>
void multiply_strip(T* c, int64_t ldc, const T* a, int64_t steps, const Shifted<T>& b, int64_t rows, int64_t cols,
                    bool accumulate, const T* column = nullptr);

// Per-thread scratch of at least n elements, aligned to cache lines; valid until this thread asks for the same slot
// again. A task uses Slot::task; what a kernel prepares for all of its tasks lives in Slot::shared of its caller.
enum class Slot { task, shared };
void* scratch_bytes(Slot slot, int64_t bytes);
template <class T>
T* scratch(Slot slot, int64_t n) {
  return static_cast<T*>(scratch_bytes(slot, n * static_cast<int64_t>(sizeof(T))));
}

namespace detail {

// Exchanges the off-diagonal blocks of size S of the 2S x 2S blocks of two rows; all S together transpose.
template <class T, int S, size_t... J>
inline void exchange(Register<T>& a, Register<T>& b, std::index_sequence<J...>) {
  using Index = typename RegisterOf<T>::Index;
  constexpr int n = kRegisterLanes<T>;
  const Register<T> low = __builtin_shuffle(a, b, Index{((J & S) != 0 ? n + J - S : J)...});
  const Register<T> high = __builtin_shuffle(a, b, Index{((J & S) != 0 ? n + J : J + S)...});
  a = low;
  b = high;
}

template <class T, int S>
inline void transpose_square(Register<T> (&r)[kRegisterLanes<T>]) {
  if constexpr (S > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < kRegisterLanes<T>; ++i) {
      if ((i & S) == 0) exchange<T, S>(r[i], r[i + S], std::make_index_sequence<kRegisterLanes<T>>());
    }
    transpose_square<T, S / 2>(r);
  }
}

}  // namespace detail

// Lane i: the sum of the lanes of r[i], in a fixed tree. r is used up.
template <class T>
Register<T> sums_of_registers(Register<T> (&r)[kRegisterLanes<T>]) {
  detail::transpose_square<T, kRegisterLanes<T> / 2>(r);
  for (int apart = 1; apart < kRegisterLanes<T>; apart *= 2) {
    for (int i = 0; i < kRegisterLanes<T>; i += 2 * apart) r[i] += r[i + apart];
  }
  return r[0];
}

// dst[j * ldd + i] = src[i * lds + j] for i < rows, j < cols. When `padded`, rows of dst are written in whole vectors
// (repeating the last row of src), which is faster.
template <bool padded, class T>
void transpose(T* dst, int64_t ldd, const T* src, int64_t lds, int64_t rows, int64_t cols) {
  constexpr int n = kRegisterLanes<T>;
  Register<T> r[n];
  for (int64_t i0 = 0; i0 < rows; i0 += n) {
    const int64_t height = rows - i0 < n ? rows - i0 : n;
    for (int64_t j0 = 0; j0 < cols; j0 += n) {
      const int64_t width = cols - j0 < n ? cols - j0 : n;
      const T* from = src + i0 * lds + j0;
      T* to = dst + j0 * ldd + i0;
      if (width == n) {
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) r[i] = load_register(from + (i < height ? i : height - 1) * lds);
      } else {
        for (int i = 0; i < n; ++i) {
          r[i] = Register<T>{};
          std::memcpy(&r[i], from + (i < height ? i : height - 1) * lds, width * sizeof(T));
        }
      }
      detail::transpose_square<T, n / 2>(r);
      if (width == n && (padded || height == n)) {
#pragma GCC unroll 16
        for (int j = 0; j < n; ++j) store_register(to + j * ldd, r[j]);
      } else {
        for (int j = 0; j < width; ++j) std::memcpy(to + j * ldd, &r[j], (padded ? n : height) * sizeof(T));
      }
    }
  }
}

// std::copy_n for some dozen elements (none if n is negative), where a call would cost more than the copy.
template <class T>
inline void copy_short(T* to, const T* from, int64_t n) {
  if (n <= 0) return;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) std::memcpy(to + i, from + i, 16 * sizeof(T));
  if ((n & 8) != 0) std::memcpy(to + i, from + i, 8 * sizeof(T)), i += 8;
  if ((n & 4) != 0) std::memcpy(to + i, from + i, 4 * sizeof(T)), i += 4;
  if ((n & 2) != 0) std::memcpy(to + i, from + i, 2 * sizeof(T)), i += 2;
  if ((n & 1) != 0) to[i] = from[i];
}

// dst[s * ldd + j] = src[s * lds + j] for s < steps, j < width; ldd is width rounded up to whole vectors or more. What
// lies behind the last column is copied along while that stays inside src; the product ignores it.
template <class T>
void copy_rows(T* dst, int64_t ldd, const T* src, int64_t lds, int64_t steps, int64_t width) {
  constexpr int n = kRegisterLanes<T>;
  const int64_t vectors = ceil_div(width, n), size = (steps - 1) * lds + width;
  const int64_t safe = size < vectors * n ? 0 : (size - vectors * n) / lds + 1;  // rows whose excess lies inside src
  const T* from = src;
  T* to = dst;
  const auto copy = [&](auto count) {
    for (int64_t s = 0; s < safe; ++s, from += lds, to += ldd) {
      for (int64_t j = 0; j < count; ++j) store_register(to + j * n, load_register(from + j * n));
    }
  };
  if (vectors == 1) {
    copy(std::integral_constant<int64_t, 1>());
  } else if (vectors == 2) {
    copy(std::integral_constant<int64_t, 2>());
  } else {
    copy(vectors);
  }
  for (int64_t s = safe; s < steps; ++s) std::memcpy(dst + s * ldd, src + s * lds, width * sizeof(T));
}

}  // namespace addp::cpu
