// Runs kernels: blocks one after another, the threads of a block in turn on the calling OS thread. A thread that never
// waits is an ordinary call; one that waits at a barrier or in a warp collective keeps its fiber and the others go on.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "cuda/device.h"
#include "cuda/emulator/poison.h"
#include "cuda/emulator/scheduler.h"

namespace addp::emulator {

Running running;

namespace {

Order order_from_environment() {
  const char* text = std::getenv("ADDP_EMULATOR_ORDER");
  const std::string order = text ? text : "mixed";
  check_as(ErrorKind::device, order == "mixed" || order == "forward" || order == "reverse" || order == "random",
           "ADDP_EMULATOR_ORDER: expected mixed, forward, reverse or random, found ", order);
  return order == "forward"   ? Order::forward
         : order == "reverse" ? Order::reverse
         : order == "random"  ? Order::random
                              : Order::mixed;
}

Thread* take_unstarted(Scheduler& s) {
  const unsigned i = s.started++;
  return &s.thread[s.order == Order::random ? s.turn[i] : s.reverse ? s.threads - 1 - i : i];
}

Thread* take_ready(Scheduler& s) {
  if (s.order == Order::random) {
    const size_t pick = s.ready_begin + s.random() % (s.ready.size() - s.ready_begin);
    std::swap(s.ready[pick], s.ready[s.ready_begin]);
  }
  Thread* thread = s.ready[s.ready_begin++];
  if (s.ready_begin == s.ready.size()) s.ready.clear(), s.ready_begin = 0;
  return thread;
}

[[noreturn]] void report_deadlock(Scheduler& s) {
  std::string waiting;
  for (const Warp& warp : s.warp)
    for (int g = 0; g < warp.groups; ++g)
      waiting += concat_text("; lanes ", std::hex, warp.group[g].arrived, " of ", warp.group[g].mask, std::dec,
                             " wait in a warp collective at ", describe(warp.group[g].site));
  if (!s.at_barrier.empty())
    waiting += concat_text("; ", s.at_barrier.size(), " threads wait at __syncthreads at ", describe(s.barrier_site));
  fault("deadlock: no thread can go on", waiting, "; ", s.returned, " threads have returned");
}

void fiber_main();

// The fiber to go on with when this one cannot; null when nothing can.
Fiber* next_fiber(Scheduler& s) {
  if (s.ready_begin < s.ready.size()) return take_ready(s)->fiber;
  if (s.started == s.threads) return nullptr;
  if (s.idle.empty()) {
    s.fibers.push_back(create_fiber(fiber_main));
    s.idle.push_back(s.fibers.back());
  }
  Fiber* fiber = s.idle.back();
  s.idle.pop_back();
  return fiber;
}

void switch_to(Scheduler& s, Fiber* to) {
  Fiber* from = s.current;
  if (from == to) return;
  ++s.counters->switches;
  s.current = to;
  switch_fiber(from, to);
}

void end_thread(Scheduler& s, const Thread& thread) {
  ++s.returned;
  Warp& warp = s.warp[thread.warp];
  warp.returned |= 1u << thread.lane;
  if (warp.groups) complete_groups(s, thread);
  if (!s.at_barrier.empty())
    fault("divergent barrier: this thread returned while ", s.at_barrier.size(), " threads wait at __syncthreads at ",
          describe(s.barrier_site));
}

void run_unstarted(Scheduler& s) {
  const Call& call = *s.call;
  while (s.started < s.threads) {
    if (s.order == Order::random && s.ready_begin < s.ready.size() && s.random() % 4 != 0) return;
    Thread* thread = take_unstarted(s);
    thread->fiber = s.current;
    running.thread = thread;
    call.invoke(call.kernel, call.arguments.get());
    end_thread(s, *running.thread);
  }
}

// A fiber's life: run threads until none is left to start, then lend itself to later ones.
void fiber_main() {
  fiber_started();
  Scheduler& s = scheduler();
  for (;;) {
    Fiber* next = nullptr;
    try {
      run_unstarted(s);
      s.idle.push_back(s.current);
      next = next_fiber(s);
      if (!next && s.returned < s.threads) report_deadlock(s);
    } catch (...) {
      s.error = std::current_exception();
      next = nullptr;
    }
    switch_to(s, next ? next : &s.host);
  }
}

void reset_fibers(Scheduler& s) {
  s.idle = s.fibers;
  for (Fiber* fiber : s.fibers) reset_fiber(fiber, fiber_main);
}

char* place_shared(Scheduler& s, size_t bytes, size_t alignment) {
  const size_t unit = std::max<size_t>(alignment, 16);
  const size_t at = (s.shared_used + kFence + unit - 1) / unit * unit;
  char* begin = s.shared + at;
  char* fenced = s.shared + s.shared_used;
  const size_t fenced_bytes = at + bytes + kFence - s.shared_used;
  ASAN_UNPOISON_MEMORY_REGION(fenced, fenced_bytes);
  std::memset(fenced, 0xFF, fenced_bytes);
  ASAN_POISON_MEMORY_REGION(fenced, begin - fenced);
  ASAN_POISON_MEMORY_REGION(begin + bytes, kFence);
  s.shared_used = at + bytes + kFence;
  return begin;
}

void check_fences(Scheduler& s) {
#ifndef __SANITIZE_ADDRESS__
  char* fence = s.shared;
  const auto check = [&](char* end) {
    for (; fence < end; ++fence)
      if (*fence != static_cast<char>(0xFF)) fault(kernel_name(s.call->kernel), ": wrote outside its shared arrays");
  };
  for (const SharedArray& array : s.arrays) check(array.begin), fence = array.begin + array.bytes;
  check(s.shared + s.shared_used);
#else
  static_cast<void>(s);
#endif
}

void run_block(Scheduler& s) {
  s.started = s.returned = 0;
  s.epoch = 0;
  s.shared_used = s.static_bytes = 0;
  s.arrays.clear();
  ASAN_POISON_MEMORY_REGION(s.shared, kSharedBytes);
  if (s.dynamic_bytes) s.arrays.push_back({nullptr, place_shared(s, s.dynamic_bytes, 256), s.dynamic_bytes});
  for (size_t w = 0; w < s.warp.size(); ++w) {
    const unsigned exist = std::min(32u, s.threads - static_cast<unsigned>(w) * 32);
    s.warp[w].returned = exist == 32 ? 0 : ~0u << exist;
    s.warp[w].groups = 0;
    s.warp[w].epoch = 0;
  }
  if (s.order == Order::random) std::shuffle(s.turn.begin(), s.turn.end(), s.random);
  s.current = &s.host;
  switch_to(s, next_fiber(s));
  if (s.error) std::rethrow_exception(std::exchange(s.error, nullptr));
  check_fences(s);
  ++s.counters->blocks;
}

void prepare_threads(Scheduler& s, dim3 block) {
  s.threads = block.x * block.y * block.z;
  s.thread.resize((s.threads + 31) / 32 * 32);
  s.warp.resize(s.thread.size() / 32);
  for (unsigned i = 0; i < s.threads; ++i) {
    const uint3 index{i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    s.thread[i] = Thread{index, i, i % 32, i / 32, nullptr, 0, 0};
  }
  s.turn.resize(s.threads);
  for (unsigned i = 0; i < s.threads; ++i) s.turn[i] = i;
}

void run_blocks(Scheduler& s, dim3 grid) {
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  std::vector<uint64_t> order;
  if (s.order == Order::random) {
    order.resize(blocks);
    for (uint64_t i = 0; i < blocks; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), s.random);
  }
  for (uint64_t i = 0; i < blocks; ++i) {
    s.block = !order.empty() ? order[i] : s.reverse ? blocks - 1 - i : i;
    running.block_index =
        uint3{static_cast<unsigned>(s.block % grid.x), static_cast<unsigned>(s.block / grid.x % grid.y),
              static_cast<unsigned>(s.block / (uint64_t{grid.x} * grid.y))};
    run_block(s);
  }
  s.counters->threads += blocks * s.threads;
}

// Forward or reverse by a hash of the launch number: a kernel that is always launched second meets both.
bool mixed_reverse(uint64_t launch) { return (launch * 0x9E3779B97F4A7C15ull) >> 63; }

}  // namespace

Scheduler& scheduler() {
  static Scheduler* instance = [] {
    auto* s = new Scheduler;
    s->order = order_from_environment();
    return s;
  }();
  return *instance;
}

void wait(Scheduler& s) {
  auto* self = const_cast<Thread*>(running.thread);
  Fiber* next = next_fiber(s);
  if (!next) report_deadlock(s);
  switch_to(s, next);
  running.thread = self;
}

void run_kernel(const Call& call, dim3 grid, dim3 block, size_t shared_bytes) {
  Scheduler& s = scheduler();
  for (const void* pointer : call.pointers)
    if (pointer && !find_allocation(pointer))
      fault(kernel_name(call.kernel), ": argument ", pointer, " was freed before the kernel ran");
  s.call = &call;
  ++s.launch;
  s.reverse = s.order == Order::reverse || (s.order == Order::mixed && mixed_reverse(s.launch));
  s.counters = &s.totals[call.kernel];
  const Counters before = *s.counters;
  ++s.counters->launches;
  s.dynamic_bytes = shared_bytes;
  running.block_dim = block, running.grid_dim = grid;
  prepare_threads(s, block);
  try {
    run_blocks(s, grid);
    running.thread = nullptr;
    for (const void* pointer : call.pointers)
      if (pointer) check_red_zones(*find_allocation(pointer), kernel_name(call.kernel));
    note_launch(call, before, *s.counters);
  } catch (...) {
    running.thread = nullptr;
    s.ready.clear(), s.at_barrier.clear();
    s.ready_begin = 0;
    s.yes = 0;
    reset_fibers(s);
    s.call = nullptr;
    throw;
  }
  s.call = nullptr;
}

void* shared_array(const void* key, size_t bytes, size_t alignment, const char* name) {
  Scheduler& s = scheduler();
  for (const SharedArray& array : s.arrays)
    if (array.key == key) return array.begin;
  s.static_bytes += bytes;
  if (s.static_bytes > kStaticSharedLimit || s.static_bytes + s.dynamic_bytes > kSharedLimit)
    fault("shared array ", name, ": ", s.static_bytes, " static and ", s.dynamic_bytes,
          " dynamic bytes are more than a block may have");
  s.arrays.push_back({key, place_shared(s, bytes, alignment), bytes});
  return s.arrays.back().begin;
}

void* dynamic_shared() {
  Scheduler& s = scheduler();
  if (!s.dynamic_bytes) fault("dynamic shared memory: the launch gave none");
  return s.arrays.front().begin;
}

void check_launch_bounds(unsigned threads) {
  const dim3& block = running.block_dim;
  if (block.x * block.y * block.z > threads)
    fault("block of ", block.x * block.y * block.z, " threads is above the kernel's __launch_bounds__(", threads, ")");
}

void set_order(Order order) { scheduler().order = order; }
const void* running_kernel() { return scheduler().call ? scheduler().call->kernel : nullptr; }
Counters& running_counters() { return *scheduler().counters; }
uint64_t launch_number() { return scheduler().launch; }
uint64_t block_number() { return scheduler().block; }
uint64_t block_epoch() { return scheduler().epoch; }
uint64_t warp_epoch(unsigned warp) { return scheduler().warp[warp].epoch; }

bool in_running_stack(const void* pointer) {
  const Fiber* fiber = scheduler().current;
  const char* p = static_cast<const char*>(pointer);
  return fiber && fiber->stack && p >= fiber->stack && p < fiber->stack + kStackBytes;
}

bool is_launch_state(const void* pointer) {
  const Scheduler& s = scheduler();
  const auto within = [p = static_cast<const char*>(pointer)](const void* begin, size_t bytes) {
    return p >= static_cast<const char*>(begin) && p < static_cast<const char*>(begin) + bytes;
  };
  return within(&running, sizeof running) || within(s.thread.data(), s.thread.size() * sizeof(Thread)) ||
         within(s.call->arguments.get(), s.call->argument_bytes);
}

SharedCheck check_shared(const void* pointer, size_t bytes) {
  const Scheduler& s = scheduler();
  const char* p = static_cast<const char*>(pointer);
  if (p < s.shared || p >= s.shared + kSharedBytes) return SharedCheck::not_shared;
  for (const SharedArray& array : s.arrays)
    if (p >= array.begin && p + bytes <= array.begin + array.bytes) return SharedCheck::inside;
  return SharedCheck::outside;
}

std::map<std::string, Counters> counters() {
  const std::lock_guard lock(device_lock());
  std::map<std::string, Counters> result;
  for (const auto& [kernel, counts] : scheduler().totals) result[kernel_name(kernel)] = counts;
  return result;
}

void reset_counters() {
  const std::lock_guard lock(device_lock());
  scheduler().totals.clear();
  reset_host_calls();
}

}  // namespace addp::emulator
