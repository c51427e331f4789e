// Race mode: kernel files are compiled with -fsanitize=thread, but linked with these hooks instead of its run-time
// library. Each load and store of a kernel is checked for bounds and for host memory, and against earlier accesses to
// the same bytes: two threads, one of them writing, need a barrier between them, or atomics. Also counts the bytes
// moved.
#include <cstring>
#include <memory>
#include <unordered_map>
#include <utility>

#include "cuda/emulator/emulator.h"

#ifndef ADDP_EMULATOR_RACE

namespace addp::emulator {
bool race_mode() { return false; }
void note_atomic(void*, size_t) {}
}  // namespace addp::emulator

#else

extern "C" char __executable_start, __data_start;

namespace addp::emulator {
namespace {

enum class Access { read, write, atomic };

// Who accessed a cell last. Readers add up: one thread, else several of one warp, else many.
constexpr uint32_t kNobody = 0, kMany = ~0u, kOfWarp = 0x80000000u;
struct Party {
  uint32_t who = kNobody;  // linear thread + 1, or kOfWarp | warp
  bool atomic = false, several_blocks = false;
  uint64_t block = 0, block_epoch = 0, warp_epoch = 0;

  uint32_t warp() const { return who & kOfWarp ? who & ~kOfWarp : (who - 1) / 32; }
};
struct Cell {
  uint64_t launch = 0, block = 0;
  uint64_t kept_until = 0;  // bytes moved by then, after which the cache has lost it
  bool was_read = false, was_written = false;
  Party writer, readers;
};

// Cells of 4 bytes, and of 1 for accesses to less than 4.
template <size_t kCell>
class Shadow {
 public:
  Cell& at(uintptr_t address) {
    const uintptr_t page = address / kPage;
    if (page != last_page_) {
      auto& found = pages_[page];
      if (!found) found = std::make_unique<Page>();
      last_ = found.get();
      last_page_ = page;
    }
    return last_->cell[address % kPage / kCell];
  }

 private:
  static constexpr size_t kPage = 4096;
  struct Page {
    Cell cell[kPage / kCell];
  };
  std::unordered_map<uintptr_t, std::unique_ptr<Page> > pages_;
  uintptr_t last_page_ = 0;
  Page* last_ = nullptr;
};

// Whether a barrier lies between the earlier access and this one, by the running thread.
bool ordered(const Party& earlier, const Party& now) {
  if (earlier.several_blocks || earlier.block != now.block) return false;
  if (earlier.block_epoch != now.block_epoch || earlier.who == now.who) return true;
  return earlier.who != kMany && earlier.warp() == now.warp() && earlier.warp_epoch != now.warp_epoch;
}

void add_reader(Party& readers, const Party& now) {
  if (readers.who == kNobody ||
      (readers.block == now.block && !readers.several_blocks && readers.block_epoch != now.block_epoch)) {
    readers = now;
    return;
  }
  if (readers.block != now.block) readers.several_blocks = true;
  if (readers.who == now.who) {
    readers.warp_epoch = now.warp_epoch;
    return;
  }
  const bool same_warp = readers.who != kMany && readers.warp() == now.warp();
  readers.who = same_warp ? kOfWarp | now.warp() : kMany;
  readers.warp_epoch = now.warp_epoch;
}

[[noreturn]] void report_race(const char* space, const void* address, Access access, const char* earlier,
                              const Party& other) {
  const std::string who = other.who == kMany    ? std::string("several threads")
                          : other.who & kOfWarp ? concat_text("warp ", other.warp())
                                                : concat_text("thread ", other.who - 1);
  fault("data race on ", space, " memory at ", address, ": this ", access == Access::read ? "read" : "write", " and a ",
        earlier, " by ", who, " of block ", other.block, " have no barrier between them");
}

void check_cell(Cell& cell, const Party& now, Access access, bool shared, const void* address, Counters& counts,
                size_t bytes) {
  if (cell.launch != launch_number() || (shared && cell.block != now.block)) {
    cell = Cell{};
    cell.launch = launch_number();
    cell.block = now.block;
  }
  const char* space = shared ? "shared" : "global";
  const bool both_atomic = access == Access::atomic && cell.writer.atomic;
  if (cell.writer.who != kNobody && !both_atomic && !ordered(cell.writer, now))
    report_race(space, address, access, "write", cell.writer);
  if (access != Access::read && cell.readers.who != kNobody && !ordered(cell.readers, now))
    report_race(space, address, access, "read", cell.readers);
  if (access == Access::read) {
    add_reader(cell.readers, now);
  } else {
    cell.writer = now;
    cell.readers = Party{};
  }
  if (shared) return;
  const uint64_t moved = counts.bytes_fetched + counts.bytes_stored;
  if (moved > cell.kept_until) cell.was_read = cell.was_written = false;
  cell.kept_until = moved + kCacheShare;
  if (access != Access::write && !std::exchange(cell.was_read, true)) counts.bytes_fetched += bytes;
  if (access != Access::read && !std::exchange(cell.was_written, true)) counts.bytes_stored += bytes;
}

// Only kernels may pass: global memory inside an allocation, shared memory inside an array, constants, their own stack.
// Returns false where races cannot be.
bool check_place(const void* address, size_t bytes, Access access, bool& shared) {
  if (in_running_stack(address) || is_launch_state(address)) return false;
  const char* verb = access == Access::read ? "read" : "write";
  if (in_device_memory(address)) {
    if (!is_device_range(address, bytes))
      fault("out of bounds or freed: ", verb, " of ", bytes, " bytes at ", address, " of global memory");
    return true;
  }
  const SharedCheck in_shared = check_shared(address, bytes);
  if (in_shared == SharedCheck::outside)
    fault("out of bounds: ", verb, " of ", bytes, " bytes at ", address, " outside the shared arrays");
  shared = in_shared == SharedCheck::inside;
  if (shared) return true;
  const char* p = static_cast<const char*>(address);
  if (access == Access::read && p >= &__executable_start && p < &__data_start) return false;
  fault(verb, " of host memory at ", address);
}

void on_access(const void* address, size_t bytes, Access access) {
  if (!running.thread) return;
  bool shared = false;
  if (!check_place(address, bytes, access, shared)) return;
  static auto* words = new Shadow<4>;
  static auto* single = new Shadow<1>;
  Counters& counts = running_counters();
  if (!shared && access != Access::write) counts.bytes_read += bytes;
  if (!shared && access != Access::read) counts.bytes_written += bytes;
  Party now;
  now.who = running.thread->linear + 1;
  now.atomic = access == Access::atomic;
  now.block = block_number();
  now.block_epoch = block_epoch();
  now.warp_epoch = warp_epoch(running.thread->warp);
  const auto first = reinterpret_cast<uintptr_t>(address);
  if (bytes < 4)
    for (size_t i = 0; i < bytes; ++i) check_cell(single->at(first + i), now, access, shared, address, counts, 1);
  else
    for (size_t i = 0; i < bytes; i += 4) check_cell(words->at(first + i), now, access, shared, address, counts, 4);
}

}  // namespace

bool race_mode() { return true; }
void note_atomic(void* address, size_t bytes) { on_access(address, bytes, Access::atomic); }

}  // namespace addp::emulator

using addp::emulator::Access;
using addp::emulator::on_access;

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* p, size_t bytes) { on_access(p, bytes, Access::read); }
void __tsan_write_range(void* p, size_t bytes) { on_access(p, bytes, Access::write); }
#define ADDP_HOOKS(bytes)                                                           \
  void __tsan_read##bytes(void* p) { on_access(p, bytes, Access::read); }           \
  void __tsan_write##bytes(void* p) { on_access(p, bytes, Access::write); }         \
  void __tsan_unaligned_read##bytes(void* p) { on_access(p, bytes, Access::read); } \
  void __tsan_unaligned_write##bytes(void* p) { on_access(p, bytes, Access::write); }
ADDP_HOOKS(1)
ADDP_HOOKS(2)
ADDP_HOOKS(4)
ADDP_HOOKS(8)
ADDP_HOOKS(16)
#undef ADDP_HOOKS

// Host code in kernel files (static locals, reference counts) uses atomics, which the compiler routes here as well.
#define ADDP_HOST_ATOMICS(bits, T)                                                                                  \
  T __tsan_atomic##bits##_load(const volatile T* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }           \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }           \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##bits##_fetch_sub(volatile T* p, T v, int) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); } \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* expected, T v, int, int) {                    \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                  \
  }
ADDP_HOST_ATOMICS(8, unsigned char)
ADDP_HOST_ATOMICS(32, unsigned)
ADDP_HOST_ATOMICS(64, unsigned long)
#undef ADDP_HOST_ATOMICS
}

#endif
