// Host memory: a caching allocator that keeps freed blocks for the next tensors and counts what is in use. Small blocks
// (64-byte aligned) are reused for their own size; large ones (page aligned) are cut from one range with huge pages and
// grow together again when they are freed, so that what is resident stays close to what was in use at the peak.
#pragma once
#include <cstdint>

namespace addp {

struct MemoryStatistics {
  int64_t in_use_bytes = 0;  // held by live tensors, rounded up to blocks
  int64_t peak_bytes = 0;    // the most that in_use_bytes has been since reset_peak_memory
  int64_t cached_bytes = 0;  // kept for reuse
  int64_t system_calls = 0;  // how often blocks were taken from the operating system since the start
};

// Throws Error(device) when the operating system gives no memory. allocate(0) returns a valid pointer.
void* allocate(int64_t bytes);
void deallocate(void* data, int64_t bytes);
MemoryStatistics memory_statistics();
void reset_peak_memory();
void release_cached_memory();  // gives cached blocks back to the operating system

}  // namespace addp
