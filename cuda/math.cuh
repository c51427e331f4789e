// Activation functions on the device, as tensor/cpu_math.h defines them.
#pragma once
#include "cuda/device.h"

namespace addp::kernel {

template <class T>
__device__ T sigmoid(T x) {
  return 1 / (1 + exp(-x));
}
template <class T>
__device__ T silu(T x) {
  return x * sigmoid(x);
}
// s(x) (1 + x (1 - s(x)))
template <class T>
__device__ T silu_derivative(T x) {
  const T s = sigmoid(x);
  return s * (1 + x * (1 - s));
}
// x Phi(x), Phi the normal distribution function.
template <class T>
__device__ T gelu(T x) {
  return x * T(0.5) * (1 + erf(x * T(0.70710678118654752)));
}
// Phi(x) + x phi(x)
template <class T>
__device__ T gelu_derivative(T x) {
  return T(0.5) * (1 + erf(x * T(0.70710678118654752))) + x * T(0.39894228040143268) * exp(x * x * T(-0.5));
}

}  // namespace addp::kernel
