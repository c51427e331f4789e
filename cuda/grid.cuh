// Sizes of launches: how many blocks, and how many pieces of 16 bytes.
#pragma once
#include "cuda/device.h"

namespace addp::kernel {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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

template <class T>
bool is_quad_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % alignof(Quad<T>) == 0;
}

}  // namespace addp::kernel
