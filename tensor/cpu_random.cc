// Random numbers on the CPU: the same draws as random.h, several Philox counters at a time.
#include <algorithm>

#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"
#include "tensor/random.h"

namespace addp::kernel {

namespace {

typedef uint64_t Words __attribute__((vector_size(64)));  // one 32-bit word of eight counters, in 64-bit lanes

// u[i] = philox_uniform(seed, stream, index + i) for eight i.
void eight_uniforms(double* u, uint64_t seed, uint64_t stream, uint64_t index) {
  const Words i = index + Words{0, 1, 2, 3, 4, 5, 6, 7}, low = Words{} + 0xFFFFFFFFu;
  Words c0 = i & low, c1 = i >> 32, c2 = Words{} + (stream & 0xFFFFFFFFu), c3 = Words{} + (stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const Words a = c0 * 0xD2511F53u, b = c2 * 0xCD9E8D57u;
    c0 = (b >> 32) ^ c1 ^ k0;
    c1 = b & low;
    c2 = (a >> 32) ^ c3 ^ k1;
    c3 = a & low;
  }
  const cpu::VecD y = __builtin_convertvector((c0 << 21) ^ (c1 >> 11), cpu::VecD) * 0x1.0p-53;
  cpu::store<double>(u, cpu::AllLanes<double>{}, y);
}

// u[i] = philox_uniform(seed, stream, position + i) for i < n, n at most kBlock; u has kBlock elements.
constexpr int64_t kBlock = 256;
void uniforms(double* u, int64_t n, uint64_t seed, uint64_t stream, uint64_t position) {
  for (int64_t i = 0; i < n; i += 8) eight_uniforms(u + i, seed, stream, position + i);
}

constexpr int64_t kDrawGrain = 4096;  // a draw costs more than an addition

}  // namespace

template <class T>
void random_uniform(Cpu, T* y, int64_t n, uint64_t seed, uint64_t stream, uint64_t position) {
  // Rounded to float the largest draws would be 1.
  constexpr T kBelowOne = 1 - std::numeric_limits<T>::epsilon() / 2;
  parallel_ranges(n, kDrawGrain, [&](int64_t begin, int64_t end) {
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
  parallel_ranges(n, kDrawGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<T>(philox_normal(seed, stream, position + i));
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
  parallel_ranges(n, kDrawGrain, [&](int64_t begin, int64_t end) {
    double u[kBlock];
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t count = std::min(kBlock, end - at);
      uniforms(u, count, seed, stream, position + at);
      for (int64_t i = 0; i < count; ++i) y[at + i] = u[i] < p ? T(0) : x[at + i] * scale;
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
