// The caching allocator. Sizes are rounded up to classes (quarter steps between powers of two), so that a training step
// finds every block of the step before it.
#include "tensor/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "tensor/error.h"

namespace addp {
namespace {

constexpr int64_t kLarge = int64_t{2} << 20;  // from here on: 2 MiB alignment and huge pages

int64_t size_class(int64_t bytes) {
  if (bytes <= 256) return 256;
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 4;
  return (bytes + step - 1) / step * step;
}

struct Pool {
  std::mutex mutex;
  std::map<int64_t, std::vector<void*>> free;  // by size class
  MemoryStatistics statistics;
};

// Never destroyed: tensors in static storage may outlive any order of destruction.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

void* system_allocate(int64_t size) {
  const int64_t alignment = size >= kLarge ? kLarge : 64;
  const int64_t padded = (size + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(alignment, padded);
  if (data && size >= kLarge) madvise(data, padded, MADV_HUGEPAGE);
  return data;
}

void release_locked(Pool& p) {
  for (auto& [size, blocks] : p.free) {
    for (void* block : blocks) std::free(block);
    p.statistics.cached_bytes -= size * static_cast<int64_t>(blocks.size());
  }
  p.free.clear();
}

}  // namespace

void* allocate(int64_t bytes) {
  check(bytes >= 0 && bytes < (int64_t{1} << 60), "allocate: ", bytes, " bytes asked for");
  const int64_t size = size_class(bytes);
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  void* data = nullptr;
  if (auto found = p.free.find(size); found != p.free.end() && !found->second.empty()) {
    data = found->second.back();
    found->second.pop_back();
    p.statistics.cached_bytes -= size;
  } else {
    data = system_allocate(size);
    if (!data) {
      release_locked(p);
      data = system_allocate(size);
    }
    check_as(ErrorKind::device, data != nullptr, "out of memory: ", size >> 20, " MiB asked for, ",
             p.statistics.in_use_bytes >> 20, " MiB in use; try a smaller batch");
    ++p.statistics.system_calls;
  }
  p.statistics.in_use_bytes += size;
  p.statistics.peak_bytes = std::max(p.statistics.peak_bytes, p.statistics.in_use_bytes);
  return data;
}

void deallocate(void* data, int64_t bytes) {
  if (!data) return;
  const int64_t size = size_class(bytes);
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.statistics.in_use_bytes -= size;
#ifdef __SANITIZE_ADDRESS__
  std::free(data);  // a cache would hide uses after free
#else
  p.statistics.cached_bytes += size;
  p.free[size].push_back(data);
#endif
}

MemoryStatistics memory_statistics() {
  std::lock_guard lock(pool().mutex);
  return pool().statistics;
}

void reset_peak_memory() {
  std::lock_guard lock(pool().mutex);
  pool().statistics.peak_bytes = pool().statistics.in_use_bytes;
}

void release_cached_memory() {
  std::lock_guard lock(pool().mutex);
  release_locked(pool());
}

}  // namespace addp
