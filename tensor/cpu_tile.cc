// The register tile behind every dense product: kTileRows x kPanelVectors accumulators.
#include "tensor/cpu_tile.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>

namespace addp::cpu {
namespace {

template <class T>
using TileFunction = void (*)(T* c, int64_t ldc, const T* a, const Walk& walk, const T* b, int64_t cols,
                              bool accumulate, const T* row);

template <class T, int rows, int vectors>
void tile(T* c, int64_t ldc, const T* a, const Walk& walk, const T* b, int64_t cols, bool accumulate, const T* row) {
  constexpr int n = kRegisterLanes<T>;
  Register<T> sum[rows][vectors] = {};
  for (int64_t run = 0; run < walk.outer; ++run, a += walk.a_run) {
    const T* step = a;
    for (int64_t s = 0; s < walk.inner; ++s, step += walk.a_step, b += kPanelCols<T>) {
      Register<T> right[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) right[v] = load_register(b + v * n);
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[i][v] += step[i] * right[v];
      }
    }
  }
  if (row != nullptr) {
    for (int v = 0; v < vectors; ++v) {
      Register<T> shift{};
      std::memcpy(&shift, row + v * n, std::min<int64_t>(n, cols - v * n) * sizeof(T));
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) sum[i][v] += shift;
    }
  }
  if (cols == vectors * n) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        T* to = c + i * ldc + v * n;
        store_register(to, accumulate ? load_register(to) + sum[i][v] : sum[i][v]);
      }
    }
  } else {
    T block[rows * vectors * n];
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) store_register(block + (i * vectors + v) * n, sum[i][v]);
    }
    for (int i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        const T x = block[i * vectors * n + j];
        c[i * ldc + j] = accumulate ? c[i * ldc + j] + x : x;
      }
    }
  }
}

// All heights from 1 on for one width in vectors.
template <class T, int vectors, size_t... I>
constexpr std::array<TileFunction<T>, kTileRows> tiles_of_width(std::index_sequence<I...>) {
  return {tile<T, static_cast<int>(I) + 1, vectors>...};
}
// All widths from 1 on.
template <class T, size_t... V>
constexpr std::array<std::array<TileFunction<T>, kTileRows>, kPanelVectors> all_tiles(std::index_sequence<V...>) {
  return {tiles_of_width<T, static_cast<int>(V) + 1>(std::make_index_sequence<kTileRows>())...};
}

struct Buffer {
  ~Buffer() { std::free(data); }
  void* data = nullptr;
  int64_t bytes = 0;
};

}  // namespace

template <class T>
void multiply_tile(T* c, int64_t ldc, const T* a, const Walk& walk, const T* b, int64_t rows, int64_t cols,
                   bool accumulate, const T* row) {
  static constexpr auto tiles = all_tiles<T>(std::make_index_sequence<kPanelVectors>());
  tiles[ceil_div(cols, kRegisterLanes<T>) - 1][rows - 1](c, ldc, a, walk, b, cols, accumulate, row);
}

template void multiply_tile(float*, int64_t, const float*, const Walk&, const float*, int64_t, int64_t, bool,
                            const float*);
template void multiply_tile(double*, int64_t, const double*, const Walk&, const double*, int64_t, int64_t, bool,
                            const double*);

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
