// Elementwise kernels on the device: functions of one and two operands, biased GELU, row selection, accumulation. All
// run at the speed of memory: 16 bytes an access where the arrays allow it.
#include "cuda/math.cuh"
#include "cuda/reduce.cuh"

namespace addp::kernel {
namespace {

// y[i] = f(inputs[i]...). y may be one of the inputs.
template <class F, class T, class... Inputs>
__global__ __launch_bounds__(kBlock, kResident) void map_kernel(F f, T* y, int64_t n, bool packed,
                                                                const Inputs*... inputs) {
  ADDP_MAX_THREADS(kBlock);
  for_packs<T>(n, packed, thread_index(), thread_count(), [&]<int W>(int64_t i, Width<W> width) {
    const auto apply = [&](const auto&... x) {
      Pack<T, W> result;
      for (int k = 0; k < W; ++k) result[k] = f(x[k]...);
      return result;
    };
    store(y + i, apply(load(inputs + i, width)...));
  });
}

// y[i] = f(inputs[i]..., b[i % m]). With packs m is a multiple of them.
template <class F, class T, class... Inputs>
__global__ __launch_bounds__(kBlock, kResident) void broadcast_map_kernel(F f, T* y, const T* b, int64_t n, int64_t m,
                                                                          bool packed, const Inputs*... inputs) {
  ADDP_MAX_THREADS(kBlock);
  for_packs<T>(n, packed, thread_index(), thread_count(), [&]<int W>(int64_t i, Width<W> width) {
    const auto apply = [&](const auto&... x) {
      Pack<T, W> result;
      for (int k = 0; k < W; ++k) result[k] = f(x[k]...);
      return result;
    };
    store(y + i, apply(load(inputs + i, width)..., load(b + (m == n ? i : i % m), width)));
  });
}

template <class F, class T, class... Inputs>
void map(Cuda dev, F f, T* y, int64_t n, const Inputs*... inputs) {
  if (n == 0) return;
  const bool packed = aligned(y, inputs...);
  launch(map_kernel<F, T, Inputs...>, pack_dims<T>(dev, n, packed), f, y, n, packed, inputs...);
}

template <class F, class T, class... Inputs>
void broadcast_map(Cuda dev, F f, T* y, const T* b, int64_t n, int64_t m, const Inputs*... inputs) {
  if (n == 0) return;
  const bool packed = aligned(y, b, inputs...) && (m % kPack<T> == 0 || m == n);
  launch(broadcast_map_kernel<F, T, Inputs...>, pack_dims<T>(dev, n, packed), f, y, b, n, m, packed, inputs...);
}

// ---- The functions. Comparisons are written so that NaN passes through.

template <Unary op, class T>
struct Forward {
  T a, b;
  __device__ T operator()(T v) const {
    if constexpr (op == Unary::affine) return a * v + b;
    if constexpr (op == Unary::exp) return exp(v);
    if constexpr (op == Unary::log) return log(v);
    if constexpr (op == Unary::sqrt) return sqrt(v);
    if constexpr (op == Unary::square) return v * v;
    if constexpr (op == Unary::abs) return v < 0 ? -v : v;
    if constexpr (op == Unary::relu) return v < 0 ? T(0) : v;
    if constexpr (op == Unary::leaky_relu) return v < 0 ? a * v : v;
    if constexpr (op == Unary::silu) return silu(v);
    if constexpr (op == Unary::gelu) return gelu(v);
    if constexpr (op == Unary::sigmoid) return sigmoid(v);
    if constexpr (op == Unary::tanh) return tanh(v);
    if constexpr (op == Unary::clamp) return v < a ? a : (v > b ? b : v);
  }
};

// g times the derivative at v.
template <Unary op, class T>
struct Backward {
  T a, b;
  __device__ T operator()(T g, T v) const {
    if constexpr (op == Unary::affine) return a * g;
    if constexpr (op == Unary::exp) return g * exp(v);
    if constexpr (op == Unary::log) return g / v;
    if constexpr (op == Unary::sqrt) return g * T(0.5) / sqrt(v);
    if constexpr (op == Unary::square) return g * 2 * v;
    if constexpr (op == Unary::abs) return v > 0 ? g : (v < 0 ? -g : T(0));
    if constexpr (op == Unary::relu) return v > 0 ? g : T(0);
    if constexpr (op == Unary::leaky_relu) return v < 0 ? a * g : g;
    if constexpr (op == Unary::silu) return g * silu_derivative(v);
    if constexpr (op == Unary::gelu) return g * gelu_derivative(v);
    if constexpr (op == Unary::sigmoid) {
      const T s = sigmoid(v);
      return g * s * (1 - s);
    }
    if constexpr (op == Unary::tanh) {
      const T t = tanh(v);
      return g * (1 - t * t);
    }
    if constexpr (op == Unary::clamp) return v < a ? T(0) : (v > b ? T(0) : g);
  }
};

template <Unary op>
using UnaryConstant = std::integral_constant<Unary, op>;

// Calls f(UnaryConstant<op>{}).
template <class F>
void with_unary(Unary op, F&& f) {
  switch (op) {
    case Unary::affine:
      return f(UnaryConstant<Unary::affine>{});
    case Unary::exp:
      return f(UnaryConstant<Unary::exp>{});
    case Unary::log:
      return f(UnaryConstant<Unary::log>{});
    case Unary::sqrt:
      return f(UnaryConstant<Unary::sqrt>{});
    case Unary::square:
      return f(UnaryConstant<Unary::square>{});
    case Unary::abs:
      return f(UnaryConstant<Unary::abs>{});
    case Unary::relu:
      return f(UnaryConstant<Unary::relu>{});
    case Unary::leaky_relu:
      return f(UnaryConstant<Unary::leaky_relu>{});
    case Unary::silu:
      return f(UnaryConstant<Unary::silu>{});
    case Unary::gelu:
      return f(UnaryConstant<Unary::gelu>{});
    case Unary::sigmoid:
      return f(UnaryConstant<Unary::sigmoid>{});
    case Unary::tanh:
      return f(UnaryConstant<Unary::tanh>{});
    case Unary::clamp:
      return f(UnaryConstant<Unary::clamp>{});
  }
}

struct Add {
  template <class T>
  __device__ T operator()(T u, T v) const {
    return u + v;
  }
};
struct Subtract {
  template <class T>
  __device__ T operator()(T u, T v) const {
    return u - v;
  }
};
struct Multiply {
  template <class T>
  __device__ T operator()(T u, T v) const {
    return u * v;
  }
};
struct Divide {
  template <class T>
  __device__ T operator()(T u, T v) const {
    return u / v;
  }
};
template <class T>
struct AddScaled {
  T scale;
  __device__ T operator()(T u, T v) const { return u + scale * v; }
};
template <class T>
struct Lerp {
  T t;
  __device__ T operator()(T u, T v) const { return u + t * (v - u); }
};
struct BiasGelu {
  template <class T>
  __device__ T operator()(T v, T bias) const {
    return gelu(v + bias);
  }
};
struct BiasGeluBackward {
  template <class T>
  __device__ T operator()(T g, T v, T bias) const {
    return g * gelu_derivative(v + bias);
  }
};

// ---- Row selection

template <class T>
__global__ __launch_bounds__(kBlock, kResident) void select_rows_kernel(T* y, const T* mask, const T* a, int64_t a_rows,
                                                                        const T* b, int64_t b_rows, int64_t N,
                                                                        int64_t D, bool packed) {
  ADDP_MAX_THREADS(kBlock);
  for_packs<T>(N * D, packed, thread_index(), thread_count(), [&]<int W>(int64_t i, Width<W> width) {
    const int64_t r = i / D;
    const bool chosen = mask[r] != 0;
    const T* table = chosen ? a : b;
    Pack<T, W> row{};
    if (table) row = load(table + r % (chosen ? a_rows : b_rows) * D + i % D, width);
    store(y + i, row);
  });
}

}  // namespace

template <class T>
void unary_fwd(Cuda dev, Unary op, T* y, const T* x, int64_t n, double a, double b) {
  with_unary(op, [&](auto chosen) {
    map(dev, Forward<decltype(chosen)::value, T>{static_cast<T>(a), static_cast<T>(b)}, y, n, x);
  });
}

template <class T>
void unary_bwd(Cuda dev, Unary op, T* dx, const T* dy, const T* x, int64_t n, double a, double b) {
  with_unary(op, [&](auto chosen) {
    map(dev, Backward<decltype(chosen)::value, T>{static_cast<T>(a), static_cast<T>(b)}, dx, n, dy, x);
  });
}

template <class T>
void binary(Cuda dev, Binary op, T* y, const T* a, const T* b, int64_t n, int64_t m) {
  switch (op) {
    case Binary::add:
      return broadcast_map(dev, Add{}, y, b, n, m, a);
    case Binary::sub:
      return broadcast_map(dev, Subtract{}, y, b, n, m, a);
    case Binary::mul:
      return broadcast_map(dev, Multiply{}, y, b, n, m, a);
    case Binary::div:
      return broadcast_map(dev, Divide{}, y, b, n, m, a);
  }
}

template <class T>
void add_scaled(Cuda dev, T* y, const T* x, int64_t n, double scale) {
  map(dev, AddScaled<T>{static_cast<T>(scale)}, y, n, y, x);
}

template <class T>
void lerp(Cuda dev, T* y, const T* x, int64_t n, double t) {
  map(dev, Lerp<T>{static_cast<T>(t)}, y, n, y, x);
}

template <class T>
void bias_gelu_fwd(Cuda dev, T* y, const T* x, const T* bias, int64_t N, int64_t D) {
  broadcast_map(dev, BiasGelu{}, y, bias, N * D, D, x);
}

template <class T>
void bias_gelu_bwd(Cuda dev, T* dx, const T* dy, const T* x, const T* bias, int64_t N, int64_t D) {
  broadcast_map(dev, BiasGeluBackward{}, dx, bias, N * D, D, dy, x);
}

template <class T>
void select_rows(Cuda dev, T* y, const T* mask, const T* a, int64_t a_rows, const T* b, int64_t b_rows, int64_t N,
                 int64_t D) {
  if (N * D == 0) return;
  const bool packed = D % kPack<T> == 0 && aligned(y, a, b);
  launch(select_rows_kernel<T>, pack_dims<T>(dev, N * D, packed), y, mask, a, a_rows, b, b_rows, N, D, packed);
}

#define ADDP_INSTANTIATE(T)                                                              \
  template void unary_fwd(Cuda, Unary, T*, const T*, int64_t, double, double);           \
  template void unary_bwd(Cuda, Unary, T*, const T*, const T*, int64_t, double, double); \
  template void binary(Cuda, Binary, T*, const T*, const T*, int64_t, int64_t);          \
  template void add_scaled(Cuda, T*, const T*, int64_t, double);                         \
  template void lerp(Cuda, T*, const T*, int64_t, double);                               \
  template void bias_gelu_fwd(Cuda, T*, const T*, const T*, int64_t, int64_t);           \
  template void bias_gelu_bwd(Cuda, T*, const T*, const T*, const T*, int64_t, int64_t); \
  template void select_rows(Cuda, T*, const T*, const T*, int64_t, const T*, int64_t, int64_t, int64_t);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
