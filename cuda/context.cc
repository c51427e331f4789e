// The stream, the cuBLAS handle and the memory behind context.h and memory_pool.h. Only host code.
#include "cuda/context.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/memory_pool.h"

namespace addp {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;
constexpr int64_t kStagedBytes = int64_t{64} << 20;  // larger copies from the host wait instead of being staged

// Page-locked memory that a copy from the host goes through, so that neither side waits: taken again when its copy is
// done.
struct Staging {
  void* host = nullptr;
  int64_t bytes = 0;
  cudaEvent_t done = nullptr;
};

struct Context {
  cudaStream_t stream = nullptr;
  cublasHandle_t cublas = nullptr;
  void* workspace = nullptr;
  int* fault = nullptr;
  uint64_t* salt = nullptr;
  std::vector<Staging> staging;
  bool recording = false;
  std::string name;
  std::mutex mutex;  // of the counters and of staging
  DeviceMemory memory;

  Context();
};

Context::Context() {
  int devices = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  check_as(ErrorKind::device, found == cudaSuccess && devices > 0, "device: no usable NVIDIA GPU (",
           found == cudaSuccess ? "none found" : cudaGetErrorString(found), "); see nvidia-smi, or use --device cpu");
  addp::cuda(cudaSetDevice(0), "cudaSetDevice");
  cudaDeviceProp properties{};
  addp::cuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  name = concat_text(properties.name, ", ", properties.totalGlobalMem >> 30, " GiB, compute ", properties.major, ".",
                     properties.minor);
  addp::cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");

  // The pool gives nothing back to the driver between steps.
  cudaMemPool_t pool{};
  addp::cuda(cudaDeviceGetDefaultMemPool(&pool, 0), "cudaDeviceGetDefaultMemPool");
  uint64_t everything = UINT64_MAX;
  addp::cuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &everything), "cudaMemPoolSetAttribute");

  addp::cuda(cudaMallocAsync(reinterpret_cast<void**>(&fault), sizeof(int), stream), "cudaMallocAsync");
  addp::cuda(cudaMemsetAsync(fault, 0, sizeof(int), stream), "cudaMemsetAsync");
  addp::cuda(cudaMallocAsync(reinterpret_cast<void**>(&salt), sizeof(uint64_t), stream), "cudaMallocAsync");
  addp::cuda(cudaMemsetAsync(salt, 0, sizeof(uint64_t), stream), "cudaMemsetAsync");
  addp::cuda(cudaMallocAsync(&workspace, kWorkspaceBytes, stream), "cudaMallocAsync");
  addp::cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  addp::cublas(cublasCreate(&cublas), "cublasCreate");
  addp::cublas(cublasSetStream(cublas, stream), "cublasSetStream");
  addp::cublas(cublasSetWorkspace(cublas, workspace, kWorkspaceBytes), "cublasSetWorkspace");
}

// Never destroyed: tensors in static storage may outlive any order of destruction.
Context& context() {
  static Context* instance = new Context;
  return *instance;
}

void check_fault(Context& c, int fault) {
  if (fault == 0) return;
  addp::cuda(cudaMemsetAsync(c.fault, 0, sizeof(int), c.stream), "cudaMemsetAsync");
  fail(ErrorKind::runtime, "device: a kernel met an index out of range (rows by index, labels or codes)");
}

}  // namespace

Cuda current_cuda() { return {context().stream}; }

const char* cuda_backend_name() {
#ifdef ADDP_CUDA_EMULATOR
  return "emulated";
#else
  return "cuda";
#endif
}

const char* cuda_device_name() { return context().name.c_str(); }

cublasHandle_t cublas_handle(Cuda) { return context().cublas; }

int* index_fault(Cuda) { return context().fault; }

const uint64_t* random_salt(Cuda) { return context().salt; }
void set_random_salt(Cuda dev, uint64_t salt) { copy_to_device(dev, context().salt, &salt, sizeof salt); }

Recording::Recording(Cuda) { context().recording = true; }
Recording::~Recording() { context().recording = false; }

void* device_allocate(int64_t bytes) {
  check(bytes >= 0 && bytes < (int64_t{1} << 60), "device: ", bytes, " bytes asked for");
  Context& c = context();
  void* data = nullptr;
  const cudaError_t status = cudaMallocAsync(&data, static_cast<size_t>(std::max<int64_t>(bytes, 1)), c.stream);
  std::lock_guard lock(c.mutex);
  if (status != cudaSuccess) {
    cudaGetLastError();  // the failure is reported here, not at the next launch
    fail(ErrorKind::device, "device out of memory: ", bytes >> 20, " MiB asked for, ", c.memory.in_use_bytes >> 20,
         " MiB in use (", cudaGetErrorString(status), "); try a smaller batch");
  }
  c.memory.in_use_bytes += bytes;
  c.memory.peak_bytes = std::max(c.memory.peak_bytes, c.memory.in_use_bytes);
  return data;
}

void device_deallocate(void* data, int64_t bytes) noexcept {
  if (!data) return;
  Context& c = context();
  cudaFreeAsync(data, c.stream);  // a failure here means an earlier one that is reported elsewhere
  std::lock_guard lock(c.mutex);
  c.memory.in_use_bytes -= bytes;
}

DeviceMemory device_memory() {
  std::lock_guard lock(context().mutex);
  return context().memory;
}

// A piece of staging memory whose last copy is done; more is taken only until there are enough for a step.
static Staging& free_staging(Context& c, int64_t bytes) {
  for (Staging& piece : c.staging) {
    if (piece.bytes >= bytes && cudaEventQuery(piece.done) == cudaSuccess) return piece;
  }
  cudaGetLastError();  // "not ready" is no error
  Staging piece;
  for (piece.bytes = 4096; piece.bytes < bytes;) piece.bytes *= 2;
  addp::cuda(cudaMallocHost(&piece.host, static_cast<size_t>(piece.bytes)), "page-locked memory");
  addp::cuda(cudaEventCreateWithFlags(&piece.done, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  c.staging.push_back(piece);
  return c.staging.back();
}

void copy_to_device(Cuda dev, void* to, const void* from_host, int64_t bytes) {
  if (bytes == 0) return;
  Context& c = context();
  check_as(ErrorKind::device, !c.recording, "graph: a copy of ", bytes,
           " bytes from the host cannot be recorded; fill the inputs before the graph is launched");
  if (bytes <= kStagedBytes) {
    std::lock_guard lock(c.mutex);
    const Staging& piece = free_staging(c, bytes);
    std::memcpy(piece.host, from_host, static_cast<size_t>(bytes));
    addp::cuda(cudaMemcpyAsync(to, piece.host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_of(dev)),
               "copy to the device");
    addp::cuda(cudaEventRecord(piece.done, stream_of(dev)), "copy to the device");
    return;
  }
  addp::cuda(cudaMemcpyAsync(to, from_host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_of(dev)),
             "copy to the device");
  addp::cuda(cudaStreamSynchronize(stream_of(dev)), "copy to the device");
}

void copy_to_host(Cuda dev, void* to_host, const void* from, int64_t bytes) {
  if (bytes > 0) {
    addp::cuda(cudaMemcpyAsync(to_host, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_of(dev)),
               "copy to the host");
  }
  synchronize(dev);
}

void synchronize(Cuda dev) {
  Context& c = context();
  int fault = 0;
  addp::cuda(cudaMemcpyAsync(&fault, c.fault, sizeof(int), cudaMemcpyDeviceToHost, stream_of(dev)), "synchronize");
  addp::cuda(cudaStreamSynchronize(stream_of(dev)), "synchronize");
  check_fault(c, fault);
}

Scratch::Scratch(Cuda dev, int64_t bytes) : dev(dev), bytes(bytes), data(device_allocate(bytes)) {}
Scratch::~Scratch() { device_deallocate(data, bytes); }

}  // namespace addp
