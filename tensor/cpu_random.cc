// Random numbers on the CPU: the same draws as random.h, several Philox counters at a time.
#include <algorithm>

#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"
#include "tensor/random.h"

namespace addp::kernel {

namespace {

constexpr int64_t kBlock = 256;  // draws that are made at a time

// u[i] = philox_uniform(seed, stream, position + i) for i < n
void uniforms(double* u, int64_t n, uint64_t seed, uint64_t stream, uint64_t position) {
  for (int64_t i = 0; i < n; ++i) u[i] = philox_uniform(seed, stream, position + i);
}

constexpr int64_t kDrawGrain = 4096;  // a draw costs more than an addition

}  // namespace

template <class T>
void random_uniform(Cpu, T* y, int64_t n, uint64_t seed, uint64_t stream, uint64_t position) {
  // Rounded to float the largest draws would be 1.
  constexpr T kBelowOne = 1 - std::numeric_limits<T>::epsilon() / 2;
  parallel_ranges(n, kDrawGrain, [=](int64_t begin, int64_t end) {
    double u[kBlock];
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t count = std::min(kBlock, end - at);
      uniforms(u, count, seed, stream, position + at);
      for (int64_t i = 0; i < count; ++i) y[at + i] = std::min(static_cast<T>(u[i]), kBelowOne);
    }
  });
}

template <class T>
void random_normal(Cpu, T* y, int64_t n, uint64_t seed, uint64_t stream, uint64_t position) {
  parallel_ranges(n, kDrawGrain, [=](int64_t begin, int64_t end) {
    UniformPair pairs[kBlock];  // drawn apart from the logarithms, so that the drawing is vector code
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t count = std::min(kBlock, end - at);
      for (int64_t i = 0; i < count; ++i) pairs[i] = philox_pair(seed, stream, position + at + i);
      for (int64_t i = 0; i < count; ++i) y[at + i] = static_cast<T>(box_muller(pairs[i]));
    }
  });
}

template <class T>
void dropout(Cpu, T* y, const T* x, int64_t n, int64_t group, double p, uint64_t seed, uint64_t stream,
             uint64_t position) {
  const T scale = static_cast<T>(p < 1 ? 1 / (1 - p) : 0);
  if (group > 1) {
    parallel_ranges(n / group, cpu::row_grain(group), [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        const bool dropped = philox_uniform(seed, stream, position + g) < p;
        for (int64_t i = g * group; i < (g + 1) * group; ++i) y[i] = dropped ? T(0) : x[i] * scale;
      }
    });
    return;
  }
  parallel_ranges(n, kDrawGrain, [=](int64_t begin, int64_t end) {
    double u[kBlock];
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t count = std::min(kBlock, end - at);
      uniforms(u, count, seed, stream, position + at);
      for (int64_t i = 0; i < count; ++i) u[i] = u[i] < p ? 0 : 1;
      for (int64_t i = 0; i < count; ++i) y[at + i] = static_cast<T>(u[i]) != 0 ? x[at + i] * scale : T(0);
    }
  });
}

#define ADDP_INSTANTIATE(T)                                                     \
  template void random_uniform(Cpu, T*, int64_t, uint64_t, uint64_t, uint64_t); \
  template void random_normal(Cpu, T*, int64_t, uint64_t, uint64_t, uint64_t);  \
  template void dropout(Cpu, T*, const T*, int64_t, int64_t, double, uint64_t, uint64_t, uint64_t);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
