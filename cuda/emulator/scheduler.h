// The state of a running kernel, inside: what scheduler.cc and collectives.cc share.
#pragma once
#include <exception>
#include <random>
#include <unordered_map>

#include "cuda/emulator/emulator.h"
#include "cuda/emulator/fiber.h"

namespace addp::emulator {

// Threads that wait together in one warp collective.
struct Group {
  Collective kind;
  unsigned mask, arrived;
  Site site;
};
struct Warp {
  unsigned returned = 0;  // lanes that ended or never existed
  int groups = 0;
  Group group[32];
  uint64_t epoch = 0;
};
struct SharedArray {
  const void* key;
  char* begin;
  size_t bytes;
};

constexpr size_t kSharedBytes = 256 << 10, kFence = 64;

struct Scheduler {
  const Call* call = nullptr;
  uint64_t launch = 0;
  uint64_t block = 0;
  Order order = Order::mixed;
  bool reverse = false;  // this launch
  std::mt19937 random{1};
  Counters* counters = nullptr;
  std::unordered_map<const void*, Counters> totals;

  // The running block.
  unsigned threads = 0, started = 0, returned = 0;
  std::vector<Thread> thread;
  std::vector<unsigned> turn;  // the order of first turns, when random
  std::vector<Warp> warp;
  std::vector<Thread*> ready;  // from ready_begin on: may go on
  size_t ready_begin = 0;
  std::exception_ptr error;

  // Its barrier.
  std::vector<Thread*> at_barrier;
  Site barrier_site;
  Vote barrier_vote = Vote::none;
  int yes = 0, barrier_result = 0;
  uint64_t epoch = 0;

  // Its shared memory.
  alignas(256) char shared[kSharedBytes];
  size_t shared_used = 0, static_bytes = 0, dynamic_bytes = 0;
  std::vector<SharedArray> arrays;

  Fiber host;
  Fiber* current = nullptr;
  std::vector<Fiber*> fibers, idle;
};
Scheduler& scheduler();

// The running thread goes on when someone has put it on the ready list. A fault when no thread can go on.
void wait(Scheduler& s);
inline void make_ready(Scheduler& s, Thread* thread) { s.ready.push_back(thread); }

// Lets go the warp's groups that are complete, as when a thread has returned. True when the thread's own was.
bool complete_groups(Scheduler& s, const Thread& thread);

}  // namespace addp::emulator
