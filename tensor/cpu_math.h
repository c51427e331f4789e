// Vectors for the CPU kernels, through the compiler's vector types, one register wide: 64 bytes with AVX-512, 32 with
// AVX, else 16 (GCC 12 takes comparisons of wider ones apart, lane by lane). for_vectors walks an array and hands the
// ragged end to the same code. Each lane of a sum is accumulated on its own and the lanes meet in a fixed tree, so the
// order of summation never changes on one instruction set. float has its own exp and erf; double uses the standard
// library's.
#pragma once
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed to inlined functions only

namespace addp::cpu {

// Elements that a task should have, so that small tensors wake no thread.
inline constexpr int64_t kGrain = 16384;
// Rows of D elements that make a task.
inline int64_t row_grain(int64_t D) { return D >= kGrain ? 1 : D > 0 ? kGrain / D : kGrain; }

#if defined(__AVX512F__)
inline constexpr int64_t kVecBytes = 64;
#elif defined(__AVX__)
inline constexpr int64_t kVecBytes = 32;
#else
inline constexpr int64_t kVecBytes = 16;
#endif
typedef float VecF __attribute__((vector_size(kVecBytes)));
typedef double VecD __attribute__((vector_size(kVecBytes)));
typedef int32_t VecI32 __attribute__((vector_size(kVecBytes)));
typedef int64_t VecI64 __attribute__((vector_size(kVecBytes)));

template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  using type = VecF;
  using mask = VecI32;
};
template <>
struct VecOf<double> {
  using type = VecD;
  using mask = VecI64;
};
template <class T>
using Vec = typename VecOf<T>::type;

template <class T>
inline constexpr int64_t kLanes = kVecBytes / sizeof(T);
// "All lanes", as a type, so that whole vectors need no tests.
template <class T>
using AllLanes = std::integral_constant<int64_t, kLanes<T>>;

// Calls f(i, lanes) for i = 0, kLanes, 2 kLanes ... below n; lanes is AllLanes except at a ragged end.
template <class T, class F>
inline void for_vectors(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) f(i, AllLanes<T>{});
  if (i < n) f(i, n - i);
}

template <class T>
inline Vec<T> load(const T* p, AllLanes<T>) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <class T>
inline Vec<T> load(const T* p, int64_t lanes) {
#ifdef __AVX512F__
  const uint32_t mask = (1u << lanes) - 1;
  if constexpr (sizeof(T) == 4) return Vec<T>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), p));
  else return Vec<T>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), p));
#else
  Vec<T> v{};
  for (int64_t l = 0; l < lanes; ++l) v[l] = p[l];
  return v;
#endif
}
template <class T>
inline void store(T* p, AllLanes<T>, Vec<T> v) {
  std::memcpy(p, &v, sizeof(v));
}
template <class T>
inline void store(T* p, int64_t lanes, Vec<T> v) {
#ifdef __AVX512F__
  const uint32_t mask = (1u << lanes) - 1;
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, static_cast<__mmask16>(mask), __m512(v));
  else _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), __m512d(v));
#else
  for (int64_t l = 0; l < lanes; ++l) p[l] = v[l];
#endif
}

// For kernels that compute enough for memory to rest meanwhile: asks for what will be read from or written to kAhead
// elements after p. Hardware looks ahead on its own, but not into the next page.
inline constexpr int64_t kAhead = 512;
template <class T>
inline void ask_to_read(const T* p, int64_t ahead = kAhead) {
  __builtin_prefetch(p + ahead);
}
template <class T>
inline void ask_to_write(T* p, int64_t ahead = kAhead) {
  __builtin_prefetch(p + ahead, 1);
}

template <class T>
inline Vec<T> splat(T x) {
  return x - Vec<T>{};
}

// v with the lanes from `lanes` on replaced.
template <class T>
inline Vec<T> keep(Vec<T> v, AllLanes<T>, T = 0) {
  return v;
}
template <class T>
inline Vec<T> keep(Vec<T> v, int64_t lanes, T other = 0) {
  typename VecOf<T>::mask number;
  for (int64_t l = 0; l < kLanes<T>; ++l) number[l] = l;
  return number < static_cast<std::remove_cvref_t<decltype(number[0])>>(lanes) ? v : splat<T>(other);
}

// f(v, v with the lanes l and l ^ half exchanged), then the same with half / 2 ...: a fixed tree, the same in all
// lanes.
template <int64_t half, class V, class F>
inline V meet_lanes(V v, F&& f) {
  if constexpr (half == 0) {
    return v;
  } else {
    const V other = [&]<size_t... I>(std::index_sequence<I...>) { return __builtin_shufflevector(v, v, (I ^ half)...); }
    (std::make_index_sequence<sizeof(V) / sizeof(v[0])>());
    return meet_lanes<half / 2>(f(v, other), f);
  }
}
template <class T>
inline T sum_lanes(Vec<T> v) {
  return meet_lanes<kLanes<T> / 2>(v, [](Vec<T> a, Vec<T> b) { return a + b; })[0];
}
template <class T>
inline T max_lanes(Vec<T> v) {
  return meet_lanes<kLanes<T> / 2>(v, [](Vec<T> a, Vec<T> b) { return a > b ? a : b; })[0];
}

// As many elements as a VecD has lanes, as doubles.
inline VecD load_double(const double* p) { return load<double>(p, AllLanes<double>{}); }
inline VecD load_double(const float* p) {
  typedef float Half __attribute__((vector_size(kVecBytes / 2)));
  Half v;
  std::memcpy(&v, p, sizeof(v));
  return __builtin_convertvector(v, VecD);
}

// sum over i < n of f(x[i]), accumulated in double. f takes a VecD.
template <class T, class F>
inline double sum_double(const T* x, int64_t n, F&& f) {
  constexpr int64_t kStep = kLanes<double>, kChains = kVecBytes == 64 ? 4 : 8;  // additions in flight
  VecD chains[kChains] = {};
  int64_t i = 0;
  for (; i + kChains * kStep <= n; i += kChains * kStep) {
    for (int64_t c = 0; c < kChains; ++c) chains[c] += f(load_double(x + i + c * kStep));
  }
  for (; i < n; i += kStep) {
    VecD tail{};
    const int64_t lanes = n - i < kStep ? n - i : kStep;
    for (int64_t l = 0; l < lanes; ++l) tail[l] = x[i + l];
    chains[0] += keep<double>(f(tail), lanes);
  }
  for (int64_t apart = 1; apart < kChains; apart *= 2) {
    for (int64_t c = 0; c < kChains; c += 2 * apart) chains[c] += chains[c + apart];
  }
  return sum_lanes<double>(chains[0]);
}
template <class T>
inline double sum_double(const T* x, int64_t n) {
  return sum_double(x, n, [](VecD v) { return v; });
}

template <class T, class F>
inline Vec<T> lanewise(Vec<T> x, F&& f) {
  for (int64_t l = 0; l < kLanes<T>; ++l) x[l] = f(T(x[l]));
  return x;
}

// NaN stays NaN.
inline VecF clamp(VecF x, float low, float high) {
  return x < low ? splat<float>(low) : (x > high ? splat<float>(high) : x);
}
// exp(x) = 2^n exp(r), n = rint(x / log 2), |r| <= log(2) / 2: r by a two-step subtraction, exp(r) by the minimax
// polynomial of Cephes' expf. Relative error 1e-7. Without care for x outside [kLeastExponent, kGreatestExponent].
inline constexpr float kLeastExponent = -86.6f, kGreatestExponent = 88.7228f;
struct ExpParts {
  VecF fraction;  // exp(r)
  VecI32 n;
};
inline ExpParts exp_parts(VecF x) {
  const VecF kMagic = splat<float>(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const VecF shifted = x * 1.44269504f + kMagic;
  const VecF n = shifted - kMagic;
  const VecF r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  VecF p = splat<float>(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {p * r * r + r + 1.0f, std::bit_cast<VecI32>(shifted) - std::bit_cast<VecI32>(kMagic)};
}
// 2^n for n in [-126, 127].
inline VecF power_of_two(VecI32 n) { return std::bit_cast<VecF>((n + 127) << 23); }
// exp(x) for every x. Results below the smallest normal number are 0.
inline VecF exp(VecF x) {
  const ExpParts parts = exp_parts(clamp(x, kLeastExponent, kGreatestExponent));
  const VecF y = parts.fraction * power_of_two(parts.n - 1) * 2.0f;  // n reaches 128
  return x < kLeastExponent ? VecF{}
                            : (x > kGreatestExponent ? splat<float>(std::numeric_limits<float>::infinity()) : y);
}
// The same for x <= 87, with fewer tests.
inline VecF exp_negative(VecF x) {
  const ExpParts parts = exp_parts(x < kLeastExponent ? splat<float>(kLeastExponent) : x);
  return x < kLeastExponent ? VecF{} : parts.fraction * power_of_two(parts.n);
}
inline VecD exp_negative(VecD x) {
  return lanewise<double>(x, [](double v) { return std::exp(v); });
}
inline VecD exp(VecD x) {
  return lanewise<double>(x, [](double v) { return std::exp(v); });
}

// erf(x) = x P(x^2) / Q(x^2) on [-4, 4], constant outside; the rational approximation that Eigen and XLA use.
// Absolute error 4e-7.
inline VecF erf(VecF x) {
  const VecF t = clamp(x, -4.0f, 4.0f);
  const VecF t2 = t * t;
  VecF p = splat<float>(-2.72614225801306e-10f);
  p = p * t2 + 2.77068142495902e-08f;
  p = p * t2 - 2.10102402082508e-06f;
  p = p * t2 - 5.69250639462346e-05f;
  p = p * t2 - 7.34990630326855e-04f;
  p = p * t2 - 2.95459980854025e-03f;
  p = p * t2 - 1.60960333262415e-02f;
  VecF q = splat<float>(-1.45660718464996e-05f);
  q = q * t2 - 2.13374055278905e-04f;
  q = q * t2 - 1.68282697438203e-03f;
  q = q * t2 - 7.37332916720468e-03f;
  q = q * t2 - 1.42647390514189e-02f;
  return t * p / q;
}
inline VecD erf(VecD x) {
  return lanewise<double>(x, [](double v) { return std::erf(v); });
}

// log(x) = e log 2 + log(m), x = 2^e m with m in [sqrt(1/2), sqrt(2)); log(m) by the polynomial of Cephes' logf.
// Relative error 1e-7. Subnormal numbers count as 0.
inline VecF log(VecF x) {
  const VecI32 bits = std::bit_cast<VecI32>(x) - 0x3F3504F3;  // sqrt(1/2) comes to the start of a binade
  const VecF e = __builtin_convertvector(bits >> 23, VecF);
  const VecF r = std::bit_cast<VecF>((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
  VecF p = splat<float>(7.0376836292e-2f);
  p = p * r - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  const VecF y = r * r * r * p + e * -2.12194440e-4f - 0.5f * r * r + r + e * 0.693359375f;
  const VecF infinity = splat<float>(std::numeric_limits<float>::infinity());
  const VecF special = x < 0 ? infinity - infinity : (x < std::numeric_limits<float>::min() ? -infinity : x);
  return x >= std::numeric_limits<float>::min() && x < infinity ? y : special;
}
inline VecD log(VecD x) {
  return lanewise<double>(x, [](double v) { return std::log(v); });
}

// tanh(x) by the polynomial of Cephes' tanhf near 0, by exp elsewhere. Relative error 2e-7.
inline VecF tanh(VecF x) {
  const VecF x2 = x * x;
  VecF p = splat<float>(-5.70498872745e-3f);
  p = p * x2 + 2.06390887954e-2f;
  p = p * x2 - 5.37397155531e-2f;
  p = p * x2 + 1.33314422036e-1f;
  p = p * x2 - 3.33332819422e-1f;
  const VecF far = 1.0f - 2.0f / (exp(2.0f * x) + 1.0f);
  return x2 < 0.390625f ? p * x2 * x + x : far;
}
inline VecD tanh(VecD x) {
  return lanewise<double>(x, [](double v) { return std::tanh(v); });
}

inline VecF sqrt(VecF x) {
  return lanewise<float>(x, [](float v) { return std::sqrt(v); });
}
inline VecD sqrt(VecD x) {
  return lanewise<double>(x, [](double v) { return std::sqrt(v); });
}

// 1 / (1 + exp(-x)); of floats at least 2e-38.
inline VecF sigmoid(VecF x) {
  const ExpParts parts = exp_parts(clamp(-x, kLeastExponent, -kLeastExponent));
  return 1 / (1 + parts.fraction * power_of_two(parts.n));
}
inline VecD sigmoid(VecD x) { return 1 / (1 + exp(-x)); }

// The functions below are written once for either vector type.
template <class V>
inline V silu(V x) {
  return x * sigmoid(x);
}
// s(x) (1 + x (1 - s(x)))
template <class V>
inline V silu_derivative(V x) {
  const V s = sigmoid(x);
  return s * (1 + x * (1 - s));
}
template <class V>
using ElementOf = std::remove_cvref_t<decltype(V{}[0])>;

// x Phi(x), Phi the normal distribution function.
template <class V>
inline V gelu(V x) {
  using T = ElementOf<V>;
  return x * T(0.5) * (1 + erf(x * T(0.70710678118654752)));
}
// Phi(x) + x phi(x)
template <class V>
inline V gelu_derivative(V x) {
  using T = ElementOf<V>;
  return T(0.5) * (1 + erf(x * T(0.70710678118654752))) + x * T(0.39894228040143268) * exp_negative(x * x * T(-0.5));
}

}  // namespace addp::cpu
