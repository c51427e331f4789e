// From a tensor's runtime dtype and device to a kernel's compile-time T and tag.
#pragma once
#include <cstdint>
#include <vector>

#include "tensor/profile.h"
#include "tensor/tensor.h"

namespace addp {

// Device tags: the first argument of every kernel.
struct Cpu {};
struct Cuda {
  void* stream;
};
Cuda current_cuda();              // starts the device on its first call; throws Error(device) where there is none
const char* cuda_device_name();   // "NVIDIA H100 PCIe, 79 GiB, compute 9.0", or what the emulator calls itself
const char* cuda_backend_name();  // what this build's .cu files were made for: "cuda" (a GPU) or "emulated"

namespace kernel {

// y = f(x; a, b):  affine a*x + b, clamp to [a, b], leaky_relu slope a for x < 0; the others use neither.
enum class Unary { affine, exp, log, sqrt, square, abs, relu, leaky_relu, silu, gelu, sigmoid, tanh, clamp };
enum class Binary { add, sub, mul, div };

struct ConvShape {
  int64_t B, Ci, Hi, Wi;              // input
  int64_t Co, kh, kw;                 // weight
  int64_t stride, pad_top, pad_left;  // what lies below and right follows from Ho, Wo
  int64_t Ho, Wo;                     // output
};

struct AdamwStep {
  double beta1, beta2, eps, decay;
  double lr_scale;   // factor on the schedule's learning rate
  double clip_norm;  // largest norm of all gradients together; 0: any
};

#define DEVICE Cpu
#include "tensor/kernels.h"
#undef DEVICE
#define DEVICE Cuda
#include "tensor/kernels.h"
#undef DEVICE

}  // namespace kernel

void synchronize(Cuda dev);  // waits until the device has done all it was given

// Calls f(tag) for a device. A profile counts the time until the kernels are done, the device's too.
template <class F>
void dispatch_device(Device device, F&& f) {
  Profile* const profile = current_profile;
  if (profile) [[unlikely]]
    profile->begin_kernel();
  if (device == Device::cuda) {
    const Cuda cuda = current_cuda();
    f(cuda);
    if (profile) [[unlikely]]
      synchronize(cuda);
  } else {
    f(Cpu{});
  }
  if (profile) [[unlikely]]
    profile->end_kernel();
}

// dispatch(x, [&](auto dev, auto t) { using T = decltype(t); kernel::name<T>(dev, x.ptr<T>(), ...); }) for f32 and f64.
template <class F>
void dispatch(const Tensor& like, F&& f) {
  check(like.defined(), "dispatch: undefined tensor");
  dispatch_device(like.device(), [&](auto dev) {
    if (like.dtype() == DType::f32) return f(dev, float{});
    if (like.dtype() == DType::f64) return f(dev, double{});
    fail(ErrorKind::runtime, "dispatch: expected f32 or f64, found ", dtype_name(like.dtype()));
  });
}

// The same for every dtype.
template <class F>
void dispatch_any(const Tensor& like, F&& f) {
  check(like.defined(), "dispatch: undefined tensor");
  dispatch_device(like.device(), [&](auto dev) {
    switch (like.dtype()) {
      case DType::f32:
        return f(dev, float{});
      case DType::f64:
        return f(dev, double{});
      case DType::i64:
        return f(dev, int64_t{});
      case DType::u8:
        return f(dev, uint8_t{});
    }
  });
}

}  // namespace addp
