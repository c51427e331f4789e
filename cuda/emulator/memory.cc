// Device memory: one large reservation that the host cannot touch. Every allocation lies between red zones, starts as
// NaN (all bits set), and its addresses are not used again until the whole reservation has been handed out once.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "cuda/emulator/emulator.h"
#include "cuda/emulator/poison.h"

namespace addp::emulator {
namespace {

constexpr size_t kRedZone = 1024, kAlignment = 256, kPage = 4096;
constexpr unsigned char kFresh = 0xFF;  // NaN as float and double, -1 as an integer

struct Arena {
  char* begin = nullptr;
  size_t bytes = size_t{1} << 38;
  size_t cursor = 0, top = 0;  // next candidate; end of all ever handed out
  size_t live_bytes = 0;
  uint64_t allocations = 0;  // ever made
  int open = 0;
  std::map<char*, Allocation> live;
  std::map<char*, Allocation*> fresh;  // not yet filled
  Allocation* last_found = nullptr;
  struct sigaction previous {};
};

Arena& arena();

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }
// Red zones and padding included.
char* outer_begin(const Allocation& a) { return a.begin - kRedZone; }
char* outer_end(const Allocation& a) { return a.begin + round_up(a.bytes, kAlignment) + kRedZone; }

void on_segmentation_fault(int signal, siginfo_t* info, void*) {
  const char* address = static_cast<char*>(info->si_addr);
  char text[200];
  int length = 0;
  if (in_device_memory(address) && !running.thread)
    length =
        snprintf(text, sizeof text, "cuda emulator: host code touched device memory at %p; copy it first\n", address);
  else if (running.thread)
    length = snprintf(text, sizeof text,
                      "cuda emulator: a kernel touched %p, which is not allocated (block %u, thread %u)\n", address,
                      running.block_index.x, running.thread->linear);
  if (length > 0 && write(2, text, static_cast<size_t>(length)) < 0) _exit(1);
  sigaction(signal, &arena().previous, nullptr);  // the access is tried again, under the previous handler
}

Arena& arena() {
  static Arena* instance = [] {
    auto* a = new Arena;
    void* memory = MAP_FAILED;
    for (; memory == MAP_FAILED && a->bytes >= (size_t{1} << 30); a->bytes /= 2) {
      memory = mmap(nullptr, a->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory != MAP_FAILED) break;
    }
    check_as(ErrorKind::device, memory != MAP_FAILED, "emulator: cannot reserve address space for device memory");
    a->begin = static_cast<char*>(memory);
    struct sigaction action {};
    action.sa_sigaction = on_segmentation_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &a->previous);
    return a;
  }();
  return *instance;
}

// The first gap from the cursor on, else from the start.
char* find_gap(Arena& a, size_t bytes) {
  for (int round = 0; round < 2; ++round, a.cursor = 0) {
    auto next = a.live.lower_bound(a.begin + a.cursor);
    while (a.cursor + bytes <= a.bytes) {
      if (next == a.live.end() || outer_begin(next->second) >= a.begin + a.cursor + bytes) return a.begin + a.cursor;
      a.cursor = static_cast<size_t>(outer_end(next->second) - a.begin);
      ++next;
    }
  }
  return nullptr;
}

// What red zones hold: NaN as float and double, with the allocation's number in it, so that neither copying nor adding
// another red zone to it leaves it as it was (its quiet bit is clear; arithmetic sets it).
uint64_t red_pattern(const Allocation& a) {
  return 0xFFF40000FFA00000ull | (a.number & 0xFFFF) | (a.number & 0xFFFF) << 32;
}

void fill_fresh(Allocation& allocation) {
  char *begin = outer_begin(allocation), *end = outer_end(allocation), *data_end = allocation.begin + allocation.bytes;
  ASAN_UNPOISON_MEMORY_REGION(begin, end - begin);
  const uint64_t pattern = red_pattern(allocation);
  for (char* word = begin; word < end; word += sizeof pattern) std::memcpy(word, &pattern, sizeof pattern);
  std::memset(allocation.begin, kFresh, allocation.bytes);
  ASAN_POISON_MEMORY_REGION(begin, allocation.begin - begin);
  ASAN_POISON_MEMORY_REGION(data_end, end - data_end);
  allocation.filled = true;
}

#ifndef __SANITIZE_ADDRESS__
bool intact(const Allocation& allocation, const char* begin, const char* end) {
  const uint64_t pattern = red_pattern(allocation);
  for (; reinterpret_cast<uintptr_t>(begin) % 8 != 0; ++begin)
    if (*begin != reinterpret_cast<const char*>(&pattern)[reinterpret_cast<uintptr_t>(begin) % 8]) return false;
  for (; begin < end; begin += sizeof pattern)
    if (std::memcmp(begin, &pattern, sizeof pattern) != 0) return false;
  return true;
}
#endif

// Gives back the pages that no live neighbour shares.
void drop_pages(Arena& a, const Allocation& freed) {
  auto next = a.live.upper_bound(freed.begin);
  char* low = outer_begin(freed) - (outer_begin(freed) - a.begin) % kPage;
  char* high = a.begin + round_up(static_cast<size_t>(outer_end(freed) - a.begin), kPage);
  if (next != a.live.end() && outer_begin(next->second) < high) high -= kPage;
  if (next != a.live.begin() && outer_end(std::prev(next)->second) > low) low += kPage;
  if (high > low) madvise(low, static_cast<size_t>(high - low), MADV_DONTNEED);
}

}  // namespace

void* allocate(size_t bytes) {
  Arena& a = arena();
  const size_t needed = 2 * kRedZone + round_up(bytes, kAlignment);
  char* gap = find_gap(a, needed);
  if (!gap) return nullptr;
  a.cursor = static_cast<size_t>(gap - a.begin) + needed;
  a.top = std::max(a.top, a.cursor);
  char* begin = gap + kRedZone;
  Allocation& allocation = a.live[begin] = Allocation{begin, bytes, false, ++a.allocations};
  a.fresh[begin] = &allocation;
  a.live_bytes += bytes;
  return begin;
}

void release(void* pointer, const char* caller) {
  Arena& a = arena();
  const auto found = a.live.find(static_cast<char*>(pointer));
  if (found == a.live.end()) fault(caller, ": ", pointer, " is not the start of a live device allocation");
  const Allocation freed = found->second;
  check_red_zones(freed, caller);
  a.fresh.erase(freed.begin);
  a.live.erase(found);
  a.live_bytes -= freed.bytes;
  a.last_found = nullptr;
  if (freed.filled) {
    ASAN_POISON_MEMORY_REGION(freed.begin, freed.bytes);
    drop_pages(a, freed);
  }
}

void refill(void* pointer) {
  const Allocation* allocation = find_allocation(pointer);
  std::memset(allocation->begin, kFresh, allocation->bytes);
}

Allocation* find_allocation(const void* pointer) {
  Arena& a = arena();
  char* p = static_cast<char*>(const_cast<void*>(pointer));
  const auto holds = [p](const Allocation& x) { return p >= x.begin && p <= x.begin + x.bytes; };
  if (a.last_found && holds(*a.last_found)) return a.last_found;
  auto next = a.live.upper_bound(p);
  if (next == a.live.begin() || !holds(std::prev(next)->second)) return nullptr;
  return a.last_found = &std::prev(next)->second;
}

bool in_device_memory(const void* pointer) {
  const Arena& a = arena();
  const char* p = static_cast<const char*>(pointer);
  return p >= a.begin && p < a.begin + a.bytes;
}

bool is_device_range(const void* pointer, size_t bytes) {
  const Allocation* a = find_allocation(pointer);
  return a && static_cast<const char*>(pointer) + bytes <= a->begin + a->bytes;
}

void check_red_zones(const Allocation& allocation, const std::string& culprit) {
#ifdef __SANITIZE_ADDRESS__
  static_cast<void>(allocation), static_cast<void>(culprit);  // the sanitizer saw every access
#else
  if (!allocation.filled) return;
  const char* data_end = allocation.begin + allocation.bytes;
  if (!intact(allocation, outer_begin(allocation), allocation.begin))
    fault(culprit, ": wrote before the start of a device allocation of ", allocation.bytes, " bytes");
  if (!intact(allocation, data_end, outer_end(allocation)))
    fault(culprit, ": wrote past the end of a device allocation of ", allocation.bytes, " bytes");
#endif
}

size_t live_bytes() { return arena().live_bytes; }

OpenMemory::OpenMemory() {
  Arena& a = arena();
  if (a.open++ == 0 && a.top) mprotect(a.begin, round_up(a.top, kPage), PROT_READ | PROT_WRITE);
  for (auto& [begin, allocation] : a.fresh) fill_fresh(*allocation);
  a.fresh.clear();
}

OpenMemory::~OpenMemory() {
  Arena& a = arena();
  if (--a.open == 0 && a.top) mprotect(a.begin, round_up(a.top, kPage), PROT_NONE);
}

}  // namespace addp::emulator
