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

using cpu::VecD;
using cpu::VecI64;

// log(x) for x in (0, 1]: x = 2^e m, m in [sqrt(1/2), sqrt(2)), log(m) = 2 atanh(s) with s = (m - 1) / (m + 1) by the
// polynomial of fdlibm's log. Relative error 2e-16. Zero and subnormal numbers do not occur.
VecD log_unit(VecD x) {
  constexpr int64_t kRootHalf = 0x3FE6A09E667F3BCD;  // the bits of sqrt(1/2)
  const VecI64 bits = std::bit_cast<VecI64>(x) - kRootHalf;
  const VecD e = __builtin_convertvector(bits >> 52, VecD);
  const VecD f = std::bit_cast<VecD>((bits & 0x000FFFFFFFFFFFFF) + kRootHalf) - 1.0;
  const VecD s = f / (f + 2.0), z = s * s, half = 0.5 * f * f;
  VecD p = cpu::splat<double>(1.479819860511658591e-1);
  p = p * z + 1.531383769920937332e-1;
  p = p * z + 1.818357216161805012e-1;
  p = p * z + 2.222219843214978396e-1;
  p = p * z + 2.857142874366239149e-1;
  p = p * z + 3.999999999940941908e-1;
  p = p * z + 6.666666666666735130e-1;
  return e * 6.93147180369123816490e-1 - ((half - (s * (half + z * p) + e * 1.90821492927058770002e-10)) - f);
}

// cos(2 pi v) for v in [0, 1]: by quarter turns, the rest by the sine's and cosine's polynomials of Cephes.
VecD cos_turn(VecD v) {
  constexpr double kMagic = 0x1.8p52;  // adding it rounds to an integer
  const VecD shifted = 4.0 * v + kMagic, x = (v - (shifted - kMagic) * 0.25) * 6.283185307179586, x2 = x * x;
  VecD sine = cpu::splat<double>(1.58962301576546568060e-10);
  sine = sine * x2 - 2.50507477628578072866e-8;
  sine = sine * x2 + 2.75573136213857245213e-6;
  sine = sine * x2 - 1.98412698295895385996e-4;
  sine = sine * x2 + 8.33333333332211858878e-3;
  sine = sine * x2 - 1.66666666666666307295e-1;
  sine = sine * x2 * x + x;
  VecD cosine = cpu::splat<double>(-1.13585365213876817300e-11);
  cosine = cosine * x2 + 2.08757008419747316778e-9;
  cosine = cosine * x2 - 2.75573141792967388112e-7;
  cosine = cosine * x2 + 2.48015872888517045348e-5;
  cosine = cosine * x2 - 1.38888888888730564116e-3;
  cosine = cosine * x2 + 4.16666666666665929218e-2;
  cosine = cosine * x2 * x2 - 0.5 * x2 + 1.0;
  const VecI64 quarter = std::bit_cast<VecI64>(shifted);  // its lowest two bits: cos, -sin, -cos, sin
  const VecD value = (quarter & 1) != 0 ? sine : cosine;
  return ((quarter + 1) & 2) != 0 ? -value : value;
}

// box_muller of many pairs, within 3e-16 of its result: after rounding to float the same number, but for one in 10^8.
void normals(float* y, const double* u, const double* v, int64_t n) {
  cpu::for_vectors<double>(n, [&](int64_t i, auto lanes) {
    // Lanes past the end hold 0, whose radius is 0.
    const VecD radius2 = -2.0 * log_unit(1.0 - cpu::load<double>(u + i, lanes));
    const VecD value = cpu::sqrt(radius2) * cos_turn(cpu::load<double>(v + i, lanes));
    for (int64_t l = 0; l < lanes; ++l) y[i + l] = static_cast<float>(value[l]);
  });
}
void normals(double* y, const double* u, const double* v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = box_muller({u[i], v[i]});
}

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
    double u[kBlock], v[kBlock];
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t count = std::min(kBlock, end - at);
      for (int64_t i = 0; i < count; ++i) {
        const UniformPair pair = philox_pair(seed, stream, position + at + i);
        u[i] = pair.u, v[i] = pair.v;
      }
      normals(y + at, u, v, count);
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
