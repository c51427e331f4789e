// The device side of a process: one stream, on which every kernel and copy of the library runs in program order, one
// cuBLAS handle with a workspace of its own, and memory that is taken and given back in stream order (CUDA's pool,
// which keeps all it ever got: after the first training step nothing is allocated). Everything starts with the first
// use. Errors are Error(device). The same for both makings of the kernels: nvcc for a GPU, g++ for the emulator.
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "tensor/dispatch.h"

namespace addp {

inline cudaStream_t stream_of(Cuda dev) { return static_cast<cudaStream_t>(dev.stream); }

// Bound to the stream; a fixed workspace, so that the same product always gives the same bits.
cublasHandle_t cublas_handle(Cuda dev);

// Device memory that lives until the end of the scope, in stream order: kernels launched inside the scope may use it,
// and nothing waits. 256-byte aligned; bytes may be 0. Uninitialised.
struct Scratch {
  Scratch(Cuda dev, int64_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }

  Cuda dev;
  int64_t bytes;
  void* data;
};

// A number on the device, 0 unless a graph is replayed (graph.h): kernels draw from random stream `stream ^ *salt`.
const uint64_t* random_salt(Cuda dev);
void set_random_salt(Cuda dev, uint64_t salt);

// While one lives, the stream records a graph, and copies from the host are errors: a replay would repeat their values.
struct Recording {
  explicit Recording(Cuda dev);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
};

// One int on the device, 0 while all is well. A kernel that meets an index out of range stores 1 here with
// atomicMax(word, 1), reads nothing there, and goes on; the next copy to the host or synchronize() throws.
int* index_fault(Cuda dev);

}  // namespace addp
