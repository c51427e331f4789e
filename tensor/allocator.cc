// The caching allocator. Small sizes are rounded up to classes (quarter steps between powers of two). Large ones take
// the smallest free range that holds them, at the lowest address, and leave the rest: the same requests in the same
// order meet the same ranges, so a training step takes no memory after the first.
#include "tensor/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "tensor/error.h"

namespace addp {
namespace {

constexpr int64_t kLarge = int64_t{64} << 10;    // from here on blocks are cut from the arena,
constexpr int64_t kPage = 4096;                  // in multiples of this,
constexpr int64_t kHuge = int64_t{2} << 20;      // which begins where huge pages do
constexpr int64_t kChunk = int64_t{64} << 20;    // and grows by this at least; pages count when they are touched.
constexpr int64_t kReserve = int64_t{64} << 30;  // addresses that are reserved at a time, where there are as many

int64_t block_size(int64_t bytes) {
  if (bytes >= kLarge) return (bytes + kPage - 1) / kPage * kPage;
  if (bytes <= 256) return 256;
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 4;
  return (bytes + step - 1) / step * step;
}

// Disjoint ranges of addresses. Those that touch grow together.
class Ranges {
 public:
  // The first `size` bytes of the smallest range that has them, of equals the lowest; null when none has.
  char* take(int64_t size) {
    const auto found = by_size_.lower_bound({size, nullptr});
    if (found == by_size_.end()) return nullptr;
    const auto [range_size, begin] = *found;
    erase(begin, range_size);
    if (range_size > size) insert(begin + size, range_size - size);
    return begin;
  }

  void give(char* begin, int64_t size) {
    const auto after = by_address_.find(begin + size);
    if (after != by_address_.end()) {
      const int64_t more = after->second;
      erase(begin + size, more);
      size += more;
    }
    const auto next = by_address_.lower_bound(begin);
    if (next != by_address_.begin()) {
      const auto [before, before_size] = *std::prev(next);
      if (before + before_size == begin) {
        erase(before, before_size);
        begin = before;
        size += before_size;
      }
    }
    insert(begin, size);
  }

  // All of them, which are gone then.
  std::map<char*, int64_t> take_all() {
    by_size_.clear();
    return std::exchange(by_address_, {});
  }

 private:
  void insert(char* begin, int64_t size) {
    by_address_[begin] = size;
    by_size_.insert({size, begin});
  }
  void erase(char* begin, int64_t size) {
    by_address_.erase(begin);
    by_size_.erase({size, begin});
  }

  std::map<char*, int64_t> by_address_;
  std::set<std::pair<int64_t, char*>> by_size_;
};

// Large blocks, in reserved addresses that become memory from the lowest on. So what a reservation gave is one range
// once all blocks are free, and nothing is lost between pieces.
class Arena {
 public:
  // Null when no free range is large enough.
  char* take(int64_t size) { return free_.take(size); }
  void give(char* begin, int64_t size) { free_.give(begin, size); }

  // Room for a block of `size`, if the operating system has it. Returns how many bytes were taken, or 0.
  int64_t grow(int64_t size) {
    for (int64_t chunk : {std::max(size, kChunk), size}) {
      chunk = (chunk + kHuge - 1) / kHuge * kHuge;
      char* begin = unused_.take(chunk);
      if (begin == nullptr && reserve(chunk)) begin = unused_.take(chunk);
      if (begin == nullptr) continue;
      if (mprotect(begin, static_cast<size_t>(chunk), PROT_READ | PROT_WRITE) == 0) {
        free_.give(begin, chunk);
        return chunk;
      }
      unused_.give(begin, chunk);
    }
    return 0;
  }

  // Gives the memory of all free ranges back. Returns their size.
  int64_t release() {
    int64_t freed = 0;
    for (const auto& [begin, size] : free_.take_all()) {
      madvise(begin, static_cast<size_t>(size), MADV_DONTNEED);
      unused_.give(begin, size);
      freed += size;
    }
    return freed;
  }

 private:
  // Addresses without memory: many, or as many as a limit on addresses (ulimit -v) allows; false when that is fewer
  // than `least`.
  bool reserve(int64_t least) {
    least += kHuge;  // what alignment may take
    for (int64_t size = std::max(kReserve, least);; size = std::max(size / 2, least)) {
      void* begin = mmap(nullptr, static_cast<size_t>(size), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (begin == MAP_FAILED && size == least) return false;
      if (begin == MAP_FAILED) continue;
      madvise(begin, static_cast<size_t>(size), MADV_HUGEPAGE);
      const int64_t skip = (kHuge - reinterpret_cast<intptr_t>(begin) % kHuge) % kHuge;
      unused_.give(static_cast<char*>(begin) + skip, size - skip);
      return true;
    }
  }

  Ranges free_, unused_;
};

struct Pool {
  std::mutex mutex;
  std::map<int64_t, std::vector<void*>> small;  // freed, by size
  Arena large;
  MemoryStatistics statistics;
};

// Never destroyed: tensors in static storage may outlive any order of destruction.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

void release_locked(Pool& p) {
  for (auto& [size, blocks] : p.small) {
    for (void* block : blocks) std::free(block);
    p.statistics.cached_bytes -= size * static_cast<int64_t>(blocks.size());
  }
  p.small.clear();
  p.statistics.cached_bytes -= p.large.release();
}

// A block that was freed before, or null.
void* cached(Pool& p, int64_t size) {
  if (size >= kLarge) return p.large.take(size);
  const auto found = p.small.find(size);
  if (found == p.small.end() || found->second.empty()) return nullptr;
  void* data = found->second.back();
  found->second.pop_back();
  return data;
}

// Makes the cache hold a block of `size`, from the operating system; false when that has none.
bool refill(Pool& p, int64_t size) {
  int64_t more = size;
  if (size >= kLarge) {
    more = p.large.grow(size);
    if (more == 0) return false;
  } else {
    void* data = std::aligned_alloc(64, static_cast<size_t>(size));
    if (data == nullptr) return false;
    p.small[size].push_back(data);
  }
  p.statistics.cached_bytes += more;
  ++p.statistics.system_calls;
  return true;
}

}  // namespace

void* allocate(int64_t bytes) {
  check(bytes >= 0 && bytes < (int64_t{1} << 60), "allocate: ", bytes, " bytes asked for");
  const int64_t size = block_size(bytes);
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
#ifdef __SANITIZE_ADDRESS__
  void* data = std::aligned_alloc(64, static_cast<size_t>(size));  // a cache would hide uses after free
  ++p.statistics.system_calls;
#else
  void* data = cached(p, size);
  if (data == nullptr) {
    if (!refill(p, size)) {
      release_locked(p);
      refill(p, size);
    }
    data = cached(p, size);
  }
  if (data != nullptr) p.statistics.cached_bytes -= size;
#endif
  check_as(ErrorKind::device, data != nullptr, "out of memory: ", size >> 20, " MiB asked for, ",
           p.statistics.in_use_bytes >> 20, " MiB in use; try a smaller batch");
  p.statistics.in_use_bytes += size;
  p.statistics.peak_bytes = std::max(p.statistics.peak_bytes, p.statistics.in_use_bytes);
  return data;
}

void deallocate(void* data, int64_t bytes) {
  if (!data) return;
  const int64_t size = block_size(bytes);
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.statistics.in_use_bytes -= size;
#ifdef __SANITIZE_ADDRESS__
  std::free(data);
#else
  p.statistics.cached_bytes += size;
  if (size >= kLarge) p.large.give(static_cast<char*>(data), size);
  else p.small[size].push_back(data);
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
