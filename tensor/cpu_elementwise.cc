// Elementwise kernels on the CPU: functions of one and two operands, biased GELU, row selection, accumulation.
#include <algorithm>
#include <vector>

#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {

using cpu::for_vectors;
using cpu::kGrain;
using cpu::load;
using cpu::splat;
using cpu::store;
using cpu::Vec;

namespace {

// y[i] = f(inputs[i]...), f on vectors. asks: f computes enough for it to pay to ask for memory.
template <bool asks = false, class T, class F, class... Inputs>
void map(T* y, int64_t n, F f, const Inputs*... inputs) {
  for_vectors<T>(n, [&](int64_t i, auto lanes) {
    if constexpr (asks) (cpu::ask_to_read(inputs + i), ..., cpu::ask_to_write(y + i));
    store<T>(y + i, lanes, f(load<T>(inputs + i, lanes)...));
  });
}

template <class T, class F, class... Inputs>
void parallel_map(T* y, int64_t n, F f, const Inputs*... inputs) {
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) { map(y + begin, end - begin, f, (inputs + begin)...); });
}

}  // namespace

// Comparisons are written so that NaN passes through.
template <class T>
void unary_fwd(Cpu, Unary op, T* y, const T* x, int64_t n, double a, double b) {
  using V = Vec<T>;
  const T ta = static_cast<T>(a), tb = static_cast<T>(b);
  switch (op) {
    case Unary::affine:
      return parallel_map(
          y, n, [=](V v) { return ta * v + tb; }, x);
    case Unary::exp:
      return parallel_map(
          y, n, [](V v) { return cpu::exp(v); }, x);
    case Unary::log:
      return parallel_map(
          y, n, [](V v) { return cpu::log(v); }, x);
    case Unary::sqrt:
      return parallel_map(
          y, n, [](V v) { return cpu::sqrt(v); }, x);
    case Unary::square:
      return parallel_map(
          y, n, [](V v) { return v * v; }, x);
    case Unary::abs:
      return parallel_map(
          y, n, [](V v) { return v < 0 ? -v : v; }, x);
    case Unary::relu:
      return parallel_map(
          y, n, [](V v) { return v < 0 ? V{} : v; }, x);
    case Unary::leaky_relu:
      return parallel_map(
          y, n, [=](V v) { return v < 0 ? ta * v : v; }, x);
    case Unary::silu:
      return parallel_map(
          y, n, [](V v) { return cpu::silu(v); }, x);
    case Unary::gelu:
      return parallel_map(
          y, n, [](V v) { return cpu::gelu(v); }, x);
    case Unary::sigmoid:
      return parallel_map(
          y, n, [](V v) { return cpu::sigmoid(v); }, x);
    case Unary::tanh:
      return parallel_map(
          y, n, [](V v) { return cpu::tanh(v); }, x);
    case Unary::clamp:
      return parallel_map(
          y, n, [=](V v) { return v < ta ? splat<T>(ta) : (v > tb ? splat<T>(tb) : v); }, x);
  }
}

template <class T>
void unary_bwd(Cpu, Unary op, T* dx, const T* dy, const T* x, int64_t n, double a, double b) {
  using V = Vec<T>;
  const T ta = static_cast<T>(a), tb = static_cast<T>(b);
  switch (op) {
    case Unary::affine:
      return parallel_map(
          dx, n, [=](V g, V) { return ta * g; }, dy, x);
    case Unary::exp:
      return parallel_map(
          dx, n, [](V g, V v) { return g * cpu::exp(v); }, dy, x);
    case Unary::log:
      return parallel_map(
          dx, n, [](V g, V v) { return g / v; }, dy, x);
    case Unary::sqrt:
      return parallel_map(
          dx, n, [](V g, V v) { return g * T(0.5) / cpu::sqrt(v); }, dy, x);
    case Unary::square:
      return parallel_map(
          dx, n, [](V g, V v) { return g * 2 * v; }, dy, x);
    case Unary::abs:
      return parallel_map(
          dx, n, [](V g, V v) { return v > 0 ? g : (v < 0 ? -g : V{}); }, dy, x);
    case Unary::relu:
      return parallel_map(
          dx, n, [](V g, V v) { return v > 0 ? g : V{}; }, dy, x);
    case Unary::leaky_relu:
      return parallel_map(
          dx, n, [=](V g, V v) { return v < 0 ? ta * g : g; }, dy, x);
    case Unary::silu:
      return parallel_map(
          dx, n, [](V g, V v) { return g * cpu::silu_derivative(v); }, dy, x);
    case Unary::gelu:
      return parallel_map(
          dx, n, [](V g, V v) { return g * cpu::gelu_derivative(v); }, dy, x);
    case Unary::sigmoid:
      return parallel_map(
          dx, n,
          [](V g, V v) {
            const V s = cpu::sigmoid(v);
            return g * s * (1 - s);
          },
          dy, x);
    case Unary::tanh:
      return parallel_map(
          dx, n,
          [](V g, V v) {
            const V t = cpu::tanh(v);
            return g * (1 - t * t);
          },
          dy, x);
    case Unary::clamp:
      return parallel_map(
          dx, n, [=](V g, V v) { return v < ta ? V{} : (v > tb ? V{} : g); }, dy, x);
  }
}

namespace {

// b is laid out several times in a row when it is short, so that vectors stay full.
template <bool asks = false, class T, class F>
void binary_map(T* y, const T* a, const T* b, int64_t n, int64_t m, F f) {
  std::vector<T> repeated;
  if (m < 256 && m < n) {
    const int64_t copies = 512 / m;
    repeated.reserve(m * copies);
    for (int64_t i = 0; i < copies; ++i) repeated.insert(repeated.end(), b, b + m);
    b = repeated.data();
    m = static_cast<int64_t>(repeated.size());
  }
  const int64_t grain = m < kGrain ? (kGrain + m - 1) / m * m : kGrain;
  parallel_ranges(n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t j = i % m, count = std::min(end - i, m - j);
      map<asks>(y + i, count, f, a + i, b + j);
      i += count;
    }
  });
}

}  // namespace

template <class T>
void binary(Cpu, Binary op, T* y, const T* a, const T* b, int64_t n, int64_t m) {
  using V = Vec<T>;
  if (n == 0) return;
  switch (op) {
    case Binary::add:
      return binary_map(y, a, b, n, m, [](V u, V v) { return u + v; });
    case Binary::sub:
      return binary_map(y, a, b, n, m, [](V u, V v) { return u - v; });
    case Binary::mul:
      return binary_map(y, a, b, n, m, [](V u, V v) { return u * v; });
    case Binary::div:
      return binary_map(y, a, b, n, m, [](V u, V v) { return u / v; });
  }
}

template <class T>
void add_scaled(Cpu, T* y, const T* x, int64_t n, double scale) {
  const T s = static_cast<T>(scale);
  parallel_map(
      y, n, [=](Vec<T> u, Vec<T> v) { return u + s * v; }, y, x);
}

template <class T>
void lerp(Cpu, T* y, const T* x, int64_t n, double t) {
  const T s = static_cast<T>(t);
  parallel_map(
      y, n, [=](Vec<T> u, Vec<T> v) { return u + s * (v - u); }, y, x);
}

template <class T>
void bias_gelu_fwd(Cpu, T* y, const T* x, const T* bias, int64_t N, int64_t D) {
  binary_map<true>(y, x, bias, N * D, D, [](Vec<T> v, Vec<T> b) { return cpu::gelu(v + b); });
}

template <class T>
void bias_gelu_bwd(Cpu, T* dx, const T* dy, const T* x, const T* bias, int64_t N, int64_t D) {
  parallel_ranges(N, cpu::row_grain(D), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      map<true>(
          dx + r * D, D, [](Vec<T> g, Vec<T> v, Vec<T> b) { return g * cpu::gelu_derivative(v + b); }, dy + r * D,
          x + r * D, bias);
    }
  });
}

template <class T>
void select_rows(Cpu, T* y, const T* mask, const T* a, int64_t a_rows, const T* b, int64_t b_rows, int64_t N,
                 int64_t D) {
  parallel_ranges(N, cpu::row_grain(D), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* table = mask[r] != 0 ? a : b;
      if (table) {
        const T* row = table + r % (mask[r] != 0 ? a_rows : b_rows) * D;
        std::copy(row, row + D, y + r * D);
      } else {
        std::fill(y + r * D, y + (r + 1) * D, T(0));
      }
    }
  });
}

#define ADDP_INSTANTIATE(T)                                                             \
  template void unary_fwd(Cpu, Unary, T*, const T*, int64_t, double, double);           \
  template void unary_bwd(Cpu, Unary, T*, const T*, const T*, int64_t, double, double); \
  template void binary(Cpu, Binary, T*, const T*, const T*, int64_t, int64_t);          \
  template void add_scaled(Cpu, T*, const T*, int64_t, double);                         \
  template void lerp(Cpu, T*, const T*, int64_t, double);                               \
  template void bias_gelu_fwd(Cpu, T*, const T*, const T*, int64_t, int64_t);           \
  template void bias_gelu_bwd(Cpu, T*, const T*, const T*, const T*, int64_t, int64_t); \
  template void select_rows(Cpu, T*, const T*, const T*, int64_t, const T*, int64_t, int64_t, int64_t);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
