// The one header of every kernel file: plain CUDA under nvcc; under g++ the same source runs on the CPU emulator,
// because cuda_runtime.h is then cuda/emulator's. Kernels differ from plain CUDA by what this file defines and nothing
// else:
//   launch(kernel, Dims{grid, block, shared_bytes, stream}, arguments...)   in place of <<<>>>
//   ADDP_SHARED(float, tile, [32][33]);     a __shared__ array
//   ADDP_DYNAMIC_SHARED(float, rows);       float* rows, the launch's shared_bytes
//   ADDP_MAX_THREADS(256);                  first line of a __launch_bounds__(256) kernel: lets the emulator check it
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cxxabi.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <type_traits>

#include "tensor/error.h"

#ifdef ADDP_CUDA_EMULATOR
#include "cuda/emulator/device_code.h"
#else
#define ADDP_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define ADDP_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(16) unsigned char addp_dynamic_shared_[]; \
  T* const name = reinterpret_cast<T*>(addp_dynamic_shared_)
#define ADDP_MAX_THREADS(threads) static_assert((threads) <= 1024)
#endif

namespace addp {

// Throws Error(device) unless the call succeeded: cuda(cudaMemcpyAsync(...), "copy of the batch").
inline void cuda(cudaError_t status, const char* what) {
  check_as(ErrorKind::device, status == cudaSuccess, what, ": ", cudaGetErrorString(status));
}
inline void cublas(cublasStatus_t status, const char* what) {
  check_as(ErrorKind::device, status == CUBLAS_STATUS_SUCCESS, what, ": cuBLAS status ", static_cast<int>(status));
}

// The readable name of a __global__ function, for messages: "layer_norm_kernel<float>".
inline std::string kernel_name(const void* kernel) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, kernel) != cudaSuccess || !mangled) return "unknown kernel";
  int status = 0;
  char* readable = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  std::string name = status == 0 ? readable : mangled;
  std::free(readable);
  for (const std::string noise : {"void ", "addp::", "(anonymous namespace)::", "kernel::"})
    for (size_t at; (at = name.find(noise)) != std::string::npos;) name.erase(at, noise.size());
  return name.substr(0, name.rfind('('));
}

// The most blocks of a kernel that loops over its work. Few under the emulator, so that small tests go through those
// loops; results never depend on it.
#ifdef ADDP_CUDA_EMULATOR
constexpr int64_t kGridBlocks = 3;
#else
constexpr int64_t kGridBlocks = 1 << 16;
#endif

// The shape of a launch, as <<<grid, block, shared_bytes, stream>>>.
struct Dims {
  dim3 grid, block;
  size_t shared_bytes = 0;
  void* stream = nullptr;
};

// Starts kernel(args...), each argument converted to its parameter's type. Throws Error(device) naming the kernel when
// the launch is refused; faults while it runs show at the next synchronisation.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Dims& dims, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "launch: wrong number of kernel arguments");
  static_assert((std::is_trivially_destructible_v<Parameters> && ...), "launch: kernel parameters are plain values");
  static_assert((!std::is_reference_v<Parameters> && ...), "launch: a kernel cannot take references");
#if defined(__CUDACC__)
  const auto stream = static_cast<cudaStream_t>(dims.stream);
  kernel<<<dims.grid, dims.block, dims.shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess)
    fail(ErrorKind::device, kernel_name(reinterpret_cast<const void*>(kernel)), ": ", cudaGetErrorString(status));
#elif defined(ADDP_CUDA_EMULATOR)
  emulator::launch(kernel, dims.grid, dims.block, dims.shared_bytes, dims.stream,
                   std::tuple<Parameters...>(static_cast<Parameters>(arguments)...));
#else
  static_assert(sizeof...(Parameters) > 10000, "launch: this file must be compiled by nvcc");
#endif
}

}  // namespace addp
