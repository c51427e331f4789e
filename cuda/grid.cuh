// Grids of up to three dimensions, and four elements at a time.
#pragma once
#include "cuda/reduce.cuh"

namespace addp::kernel {

inline dim3 grid_of(int64_t x, int64_t y = 1, int64_t z = 1) {
  check(x > 0 && x < (int64_t{1} << 31) && y > 0 && y < 65536 && z > 0 && z < 65536, "a launch on the device of ", x,
        " x ", y, " x ", z, " blocks is more than it can take");
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
}

// Four neighbours, moved as 16-byte pieces.
template <class T>
struct alignas(16) Quad {
  T v[4];
};

// In global memory, 16-byte aligned.
template <class T>
__device__ inline Quad<T> load_quad(const T* p) {
  constexpr int W = kPack<T>;
  Quad<T> quad;
  for (int i = 0; i < 4; i += W) {
    const Pack<T, W> pack = load(p + i, Width<W>{});
    for (int j = 0; j < W; ++j) quad.v[i + j] = pack[j];
  }
  return quad;
}
template <class T>
__device__ inline void store_quad(T* p, const Quad<T>& quad) {
  constexpr int W = kPack<T>;
  for (int i = 0; i < 4; i += W) {
    Pack<T, W> pack;
    for (int j = 0; j < W; ++j) pack[j] = quad.v[i + j];
    store(p + i, pack);
  }
}

}  // namespace addp::kernel
