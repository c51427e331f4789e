// What tensors need of the device, without CUDA's own headers.
#pragma once
#include <cstdint>

#include "tensor/dispatch.h"

namespace addp {

// Stream-ordered memory of the device, 256-byte aligned. Throws Error(device) when there is none left.
void* device_allocate(int64_t bytes);
void device_deallocate(void* data, int64_t bytes) noexcept;

// The host may use or change its side as soon as these return. The copy to the device waits for nothing, unless it is
// very large; the copy to the host waits for the stream, and reports what kernels found wrong (see index_fault).
void copy_to_device(Cuda dev, void* to, const void* from_host, int64_t bytes);
void copy_to_host(Cuda dev, void* to_host, const void* from, int64_t bytes);
// Waits for everything launched so far, and reports its errors.
void synchronize(Cuda dev);

struct DeviceMemory {
  int64_t in_use_bytes = 0, peak_bytes = 0;  // held by live tensors and scratch
};
DeviceMemory device_memory();

}  // namespace addp
