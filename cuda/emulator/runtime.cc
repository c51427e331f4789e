// NVIDIA's runtime API: the device, launches, memory and copies (streams, events and graphs are in streams.cc).
// Arguments that CUDA would only misbehave on are faults here.
#include <cstring>
#include <utility>

#include "cuda/device.h"
#include "cuda/emulator/streams.h"

namespace addp::emulator {
namespace {

bool is_pinned(const void* pointer) {
  const auto& pinned = runtime().pinned;
  const char* p = static_cast<const char*>(pointer);
  auto next = pinned.upper_bound(const_cast<char*>(p));
  return next != pinned.begin() && p < std::prev(next)->first + std::prev(next)->second;
}

void check_copy(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  static const char* const names[] = {"HostToHost", "HostToDevice", "DeviceToHost", "DeviceToDevice", "Default"};
  const bool to_device = in_device_memory(to), from_device = in_device_memory(from);
  if (kind != cudaMemcpyDefault) {
    const bool wants_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool wants_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device != wants_to || from_device != wants_from)
      fault("cudaMemcpy: direction ", names[kind], ", but the destination is ", to_device ? "device" : "host",
            " memory and the source ", from_device ? "device" : "host", " memory");
  }
  if (to_device && !is_device_range(to, bytes)) fault("cudaMemcpy: the destination has fewer than ", bytes, " bytes");
  if (from_device && !is_device_range(from, bytes)) fault("cudaMemcpy: the source has fewer than ", bytes, " bytes");
}

void check_shape(const void* kernel, dim3 grid, dim3 block) {
  const auto text = [](dim3 d) { return concat_text("(", d.x, ", ", d.y, ", ", d.z, ")"); };
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535)
    fault(kernel_name(kernel), ": bad launch configuration, grid ", text(grid),
          "; limits are 1 to (2147483647, 65535, 65535)");
  if (threads < 1 || threads > 1024 || block.z > 64)
    fault(kernel_name(kernel), ": bad launch configuration, block ", text(block),
          "; it needs 1 to 1024 threads, z at most 64");
}

}  // namespace

void enqueue_launch(Call call, dim3 grid, dim3 block, size_t shared_bytes, void* stream) {
  const std::lock_guard lock(device_lock());
  check_shape(call.kernel, grid, block);
  const auto raised = runtime().shared_limit.find(call.kernel);
  const size_t limit = raised == runtime().shared_limit.end() ? kStaticSharedLimit : raised->second;
  if (shared_bytes > limit)
    fault(kernel_name(call.kernel), ": bad launch configuration, ", shared_bytes,
          " bytes of dynamic shared memory; the limit is ", limit);
  for (const void* pointer : call.pointers)
    if (pointer && !find_allocation(pointer))
      fault(kernel_name(call.kernel), ": argument ", pointer,
            in_device_memory(pointer) ? " is freed device memory" : " is a host pointer",
            "; kernels take pointers to live device memory");
  if (is_dry()) return note_launch(call, {}, {});
  enqueue(stream, [=, call = std::move(call)] { run_kernel(call, grid, block, shared_bytes); });
}

}  // namespace addp::emulator

using namespace addp::emulator;
#define LOCK const std::lock_guard lock(device_lock())

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorNotSupported:
      return "operation not supported";
  }
  return "unknown error";
}
const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
cudaError_t cudaPeekAtLastError() {
  LOCK;
  return runtime().last_error;
}
cudaError_t cudaGetLastError() {
  LOCK;
  return std::exchange(runtime().last_error, cudaSuccess);
}

// ---- The device -----------------------------------------------------------------------------------------------------
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  *p = cudaDeviceProp{"CPU emulator (no GPU)", size_t{1} << 38, kStaticSharedLimit, kSharedLimit, 7, 5, 4, 32, 1024};
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, device)) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return *value = p.maxThreadsPerBlock, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return *value = static_cast<int>(p.sharedMemPerBlock), cudaSuccess;
    // Clocks in kHz and a width in bits that no GPU has, so that nobody takes rates from them for real.
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
      return *value = 1000, cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
      return *value = 64, cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      return *value = p.multiProcessorCount, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = p.major, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      return *value = p.minor, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = static_cast<int>(p.sharedMemPerBlockOptin), cudaSuccess;
  }
  return result(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceSynchronize() {
  LOCK;
  count_wait("cudaDeviceSynchronize");
  synchronize(everything());
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  LOCK;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      static_cast<size_t>(value) > kSharedLimit)
    return result(cudaErrorInvalidValue);
  runtime().shared_limit[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

// ---- Memory ---------------------------------------------------------------------------------------------------------
cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  LOCK;
  count_allocation("cudaMalloc");
  *pointer = bytes ? allocate(bytes) : nullptr;
  return result(bytes && !*pointer ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t handle) {
  LOCK;
  Stream& stream = stream_of(handle);
  *pointer = bytes ? allocate(bytes) : nullptr;
  if (bytes && !*pointer) return result(cudaErrorMemoryAllocation);
  if (!bytes) return cudaSuccess;
  if (stream.capture) {
    stream.capture->memory[*pointer] = false;
    stream.capture->work.push_back([memory = *pointer] { refill(memory); });
    return cudaSuccess;
  }
  Runtime& r = runtime();
  r.pool_bytes += bytes;
  if (r.pool_bytes > r.pool_most) r.pool_most = r.pool_bytes, ++r.calls.pool_growths;
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  LOCK;
  if (!pointer) return cudaSuccess;
  count_allocation("cudaFree");
  synchronize(everything());
  const OpenMemory open;
  release(pointer, "cudaFree");
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t handle) {
  LOCK;
  if (!pointer) return cudaSuccess;
  Stream& stream = stream_of(handle);
  if (stream.capture) {
    const auto found = stream.capture->memory.find(pointer);
    if (found == stream.capture->memory.end() || std::exchange(found->second, true))
      return result(cudaErrorInvalidValue);  // on a GPU the second launch would free it again
    return cudaSuccess;
  }
  const Allocation* allocation = find_allocation(pointer);
  if (allocation) runtime().pool_bytes -= allocation->bytes;
  if (is_dry() && allocation && !allocation->filled) return release(pointer, "cudaFreeAsync"), cudaSuccess;
  enqueue_after(
      handle, {}, [=] { release(pointer, "cudaFreeAsync"); }, true);
  return cudaSuccess;
}
// The pool keeps nothing: memory that is given back is closed at once, so that a use after it shows.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = nullptr;
  return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  LOCK;
  count_allocation("cudaMallocHost");
  auto* memory = new char[bytes];
  runtime().pinned[memory] = bytes;
  *pointer = memory;
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) { return cudaMallocHost(pointer, bytes); }
cudaError_t cudaFreeHost(void* pointer) {
  LOCK;
  if (!pointer) return cudaSuccess;
  count_allocation("cudaFreeHost");
  synchronize(everything());
  auto* memory = static_cast<char*>(pointer);
  if (runtime().pinned.erase(memory) == 0) fault("cudaFreeHost: ", pointer, " did not come from cudaMallocHost");
  delete[] memory;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  LOCK;
  *total = size_t{1} << 38;
  *free = *total - live_bytes();
  return cudaSuccess;
}

// Pageable memory as CUDA documents it: copies from it are staged during the call, copies to it are complete at return.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  LOCK;
  if (bytes == 0) return cudaSuccess;
  check_copy(to, from, bytes, kind);
  const bool to_device = in_device_memory(to), from_device = in_device_memory(from);
  const bool pageable = (!to_device && !is_pinned(to)) || (!from_device && !is_pinned(from));
  if (pageable && stream_of(stream).capture)
    fault("cudaMemcpyAsync: host memory that is not page-locked, while the stream captures a graph");
  Point point;
  if (!from_device && !is_pinned(from)) {
    const auto* begin = static_cast<const char*>(from);
    auto staged = std::make_shared<std::vector<char>>(begin, begin + bytes);
    point = enqueue_after(stream, {}, [=] { std::memcpy(to, staged->data(), bytes); });
  } else {
    point = enqueue_after(stream, {}, [=] {
      check_copy(to, from, bytes, kind);  // neither may have been freed since
      std::memmove(to, from, bytes);
    });
  }
  if (to_device || is_pinned(to)) return cudaSuccess;
  count_wait("cudaMemcpyAsync");  // to pageable memory
  synchronize({point});
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  LOCK;
  count_wait("cudaMemcpy");
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  synchronize({{&runtime().default_stream, runtime().default_stream.sequence}});
  return error;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  LOCK;
  if (bytes == 0) return cudaSuccess;
  if (!is_device_range(to, bytes))
    fault("cudaMemset: ", bytes, " bytes at ", to, " are not inside one live device allocation");
  enqueue(stream, [=] {
    if (!is_device_range(to, bytes)) fault("cudaMemset: the memory at ", to, " was freed before the call ran");
    std::memset(to, value, bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }
