// The part of NVIDIA's cuda_runtime.h that this project calls, with NVIDIA's names and signatures, so that the kernels
// compile and run where no NVIDIA software is installed. Implemented by runtime.cc (calls) and scheduler.cc (kernels).
// What a call does beyond NVIDIA's description: it checks its arguments and throws addp::Error(device) when they are
// wrong.
#pragma once
#define ADDP_CUDA_EMULATOR 1
#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

// ---- Vector types: reading or writing one at an address that is not a multiple of its size is a fault, as on a GPU
// ---
namespace addp::emulator {
[[noreturn]] void report_misaligned(const void* address, size_t alignment);
// The compiler takes alignment for granted, so the address is hidden from it.
inline void check_aligned(const void* address, size_t alignment) {
  uintptr_t value = reinterpret_cast<uintptr_t>(address);
  asm("" : "+r"(value));
  if (value % alignment != 0) report_misaligned(address, alignment);
}
}  // namespace addp::emulator

#define ADDP_VECTOR2(Name, T)                                                                             \
  struct alignas(2 * sizeof(T)) Name {                                                                    \
    T x, y;                                                                                               \
    Name() = default;                                                                                     \
    Name(T x, T y) : x(x), y(y) {}                                                                        \
    Name(const Name& o) : x((addp::emulator::check_aligned(&o, sizeof(Name)), o.x)), y(o.y) {}            \
    Name& operator=(const Name& o) {                                                                      \
      addp::emulator::check_aligned(&o, sizeof(Name)), addp::emulator::check_aligned(this, sizeof(Name)); \
      x = o.x, y = o.y;                                                                                   \
      return *this;                                                                                       \
    }                                                                                                     \
  };                                                                                                      \
  inline Name make_##Name(T x, T y) { return Name(x, y); }
#define ADDP_VECTOR4(Name, T, kAlign)                                                                    \
  struct alignas(kAlign) Name {                                                                          \
    T x, y, z, w;                                                                                        \
    Name() = default;                                                                                    \
    Name(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}                                                 \
    Name(const Name& o) : x((addp::emulator::check_aligned(&o, kAlign), o.x)), y(o.y), z(o.z), w(o.w) {} \
    Name& operator=(const Name& o) {                                                                     \
      addp::emulator::check_aligned(&o, kAlign), addp::emulator::check_aligned(this, kAlign);            \
      x = o.x, y = o.y, z = o.z, w = o.w;                                                                \
      return *this;                                                                                      \
    }                                                                                                    \
  };                                                                                                     \
  inline Name make_##Name(T x, T y, T z, T w) { return Name(x, y, z, w); }
ADDP_VECTOR2(float2, float)
ADDP_VECTOR2(double2, double)
ADDP_VECTOR2(int2, int)
ADDP_VECTOR2(uint2, unsigned)
ADDP_VECTOR2(longlong2, long long)
ADDP_VECTOR2(ulonglong2, unsigned long long)
ADDP_VECTOR4(float4, float, 16)
ADDP_VECTOR4(int4, int, 16)
ADDP_VECTOR4(uint4, unsigned, 16)
ADDP_VECTOR4(uchar4, unsigned char, 4)
#undef ADDP_VECTOR2
#undef ADDP_VECTOR4

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// ---- The runtime API ------------------------------------------------------------------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorNotSupported = 801
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrClockRate = 13,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMemoryClockRate = 36,
  cudaDevAttrGlobalMemoryBusWidth = 37,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  size_t sharedMemPerBlock, sharedMemPerBlockOptin;
  int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock;
};

enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
using cudaMemPool_t = struct CUmemPoolHandle_st*;
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal = 0, cudaStreamCaptureModeThreadLocal = 1 };
constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDefault = 0, cudaEventDisableTiming = 2;
constexpr unsigned cudaHostAllocDefault = 0;

const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaMalloc(void** pointer, size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMallocHost(void** pointer, size_t bytes);
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);

// A stream that captures records its work into a graph. Waiting, host memory that is not page-locked, and memory that
// is taken and not given back, or the reverse, are faults then.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
cudaError_t cudaFuncGetName(const char** name, const void* kernel);

template <class T>
cudaError_t cudaMalloc(T** pointer, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocAsync(T** pointer, size_t bytes, cudaStream_t stream) {
  return cudaMallocAsync(reinterpret_cast<void**>(pointer), bytes, stream);
}
