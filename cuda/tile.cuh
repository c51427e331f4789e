// Products of small tiles in shared memory, the inner loop of convolution and attention. A block of 16 x 16 threads
// computes 64 rows by 64 (or 128) columns; each thread holds 4 rows by 4 (or 8) columns in registers. Both operands lie
// in shared memory with the summed index outermost, four neighbours at a time, so that every read is 16 bytes or more.
#pragma once
#include "cuda/grid.cuh"

namespace addp::kernel {

constexpr int kTileThreads = 256;
constexpr int kTileSide = 64;  // rows of a tile
constexpr int kTileQuads = kTileSide / 4;
constexpr int kPaddedQuads =
    kTileQuads + 1;  // row length of operands that are transposed on the way: no bank conflicts

__device__ inline int tile_row() { return static_cast<int>(threadIdx.x) / 16; }     // its quad of rows
__device__ inline int tile_column() { return static_cast<int>(threadIdx.x) % 16; }  // its (first) quad of columns

// sum[r][c] += a[k][r] b[k][c] for k < depth; row k of an operand starts at quad k * stride. Thread (row, column) holds
// rows 4 row + 0..3 and, for each q < kQuads, columns 4 (column + 16 q) + 0..3 of the tile.
template <int kQuads, class T>
__device__ __forceinline__ void multiply_step(T (&sum)[4][4 * kQuads], const Quad<T>* a, const Quad<T>* b) {
  const Quad<T> left = a[tile_row()];
  for (int q = 0; q < kQuads; ++q) {
    const Quad<T> right = b[tile_column() + 16 * q];
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < 4; ++c) sum[r][4 * q + c] += left.v[r] * right.v[c];
    }
  }
}
template <int kQuads, int kDepth, class T>
__device__ __forceinline__ void multiply_tile(T (&sum)[4][4 * kQuads], const Quad<T>* a, int a_stride, const Quad<T>* b,
                                              int b_stride, int depth) {
  if (depth == kDepth) {  // the usual case has a constant length, to be unrolled
    for (int k = 0; k < kDepth; ++k) multiply_step<kQuads>(sum, a + k * a_stride, b + k * b_stride);
  } else {
    for (int k = 0; k < depth; ++k) multiply_step<kQuads>(sum, a + k * a_stride, b + k * b_stride);
  }
}

}  // namespace addp::kernel
