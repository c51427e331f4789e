// The team of worker threads, woken for each parallel_for. A thread first takes the tasks of its own share, a
// contiguous range, and then helps the others: so from one kernel to the next the same part of a tensor stays in the
// same core's cache, and nobody waits for a slow core. No lock is taken from call to call: waiting threads watch a
// counter, and sleep on it after a while.
#include "tensor/parallel.h"

#include <sched.h>
#include <xmmintrin.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tensor/error.h"

namespace addp {
namespace {

// Denormals cost a hundred cycles each and carry nothing; flushed on every thread, so that results agree.
void flush_denormals() { _mm_setcsr(_mm_getcsr() | 0x8040); }

thread_local bool inside_task = false;

class Team {
 public:
  explicit Team(int threads) {
    flush_denormals();
    shares_ = std::vector<Share>(static_cast<size_t>(threads));
    // Waking a sleeping thread costs more than a small kernel; spinning pays only with a core for every thread.
    spin_ = threads <= static_cast<int>(std::thread::hardware_concurrency()) ? 4000 : 0;
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(static_cast<size_t>(i)); });
  }

  ~Team() {
    stop_ = true;
    start();
    for (std::thread& worker : workers_) worker.join();
  }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int64_t tasks, void (*call)(void*, int64_t), void* context) {
    std::lock_guard only_one(run_mutex_);
    const int64_t n = size();
    for (int64_t i = 0; i < n; ++i) {
      shares_[static_cast<size_t>(i)].end = tasks * (i + 1) / n;
      shares_[static_cast<size_t>(i)].next.store(tasks * i / n, std::memory_order_relaxed);
    }
    call_ = call;
    context_ = context;
    error_ = nullptr;
    busy_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
    shares_[0].core.store(sched_getcpu(), std::memory_order_relaxed);
    start();
    take_tasks(0);
    wait_while(busy_, [](uint32_t busy) { return busy != 0; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // The tasks of one kernel call that a thread takes first. On a cache line of its own.
  struct alignas(64) Share {
    Share() = default;
    Share(const Share&) {}
    std::atomic<int64_t> next{0};
    int64_t end = 0;
    std::atomic<int> core{-1};  // where the thread was last seen
  };

  void take_tasks(size_t self) {
    inside_task = true;
    for (size_t i = 0; i < shares_.size(); ++i) {
      Share& share = shares_[(self + i) % shares_.size()];
      for (int64_t task; (task = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
        try {
          call_(context_, task);
        } catch (...) {
          std::lock_guard lock(error_mutex_);
          if (!error_) error_ = std::current_exception();
          for (Share& other : shares_) other.next.store(other.end, std::memory_order_relaxed);
        }
      }
    }
    inside_task = false;
  }

  // Lets the workers go: each reads what was written before.
  void start() {
    generation_.fetch_add(1);
    wake_sleepers();
  }

  // Waits while the condition holds for the value, awake at first. Returns whether the thread slept. (std::atomic's
  // wait would give its core away to other processes for milliseconds, by sched_yield, where the wait is for
  // microseconds.)
  template <class Condition>
  bool wait_while(const std::atomic<uint32_t>& value, Condition&& condition) {
    for (int i = 0; i <= spin_; ++i) {
      if (!condition(value.load(std::memory_order_acquire))) return false;
      _mm_pause();
    }
    std::unique_lock lock(sleep_mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, [&] { return !condition(value.load()); });
    sleepers_.fetch_sub(1);
    return true;
  }

  // To be called after a value was changed that somebody may wait for. In the one order of all these operations the
  // change comes before a sleeper's look at the value, or the sleeper is counted before we look.
  void wake_sleepers() {
    if (sleepers_.load() == 0) return;
    { std::lock_guard lock(sleep_mutex_); }
    wake_.notify_all();
  }

  // A thread that slept is woken on any core, often on that of the thread that woke it, where each would then wait for
  // the other until the scheduler looks at them again, ten milliseconds later: it moves to a core without one of us.
  void avoid_shared_core(size_t self) {
    const int here = sched_getcpu();
    cpu_set_t allowed, free;
    if (spin_ == 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    free = allowed;
    bool shared = false;
    for (size_t i = 0; i < shares_.size(); ++i) {
      const int other = i == self ? -1 : shares_[i].core.load(std::memory_order_relaxed);
      if (other < 0) continue;
      shared = shared || other == here;
      CPU_CLR(other, &free);
    }
    if (shared && CPU_COUNT(&free) > 0) {
      sched_setaffinity(0, sizeof free, &free);
      sched_setaffinity(0, sizeof allowed, &allowed);
    }
    shares_[self].core.store(sched_getcpu(), std::memory_order_relaxed);
  }

  void work(size_t self) {
    flush_denormals();
    for (uint32_t seen = 0;;) {
      if (wait_while(generation_, [=](uint32_t generation) { return generation == seen; })) avoid_shared_core(self);
      ++seen;
      if (stop_) return;
      take_tasks(self);
      if (busy_.fetch_sub(1) == 1) wake_sleepers();
    }
  }

  std::vector<Share> shares_;
  std::vector<std::thread> workers_;
  std::mutex run_mutex_, error_mutex_, sleep_mutex_;
  std::condition_variable wake_;
  alignas(64) std::atomic<uint32_t> generation_{0};  // kernel calls so far
  alignas(64) std::atomic<uint32_t> busy_{0};        // workers not yet done with the present one
  std::atomic<uint32_t> sleepers_{0};
  void (*call_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  std::exception_ptr error_;
  bool stop_ = false;
  int spin_ = 0;
};

int default_threads() {
  if (const char* text = std::getenv("ADDP_THREADS")) {
    const int n = std::atoi(text);
    check_as(ErrorKind::usage, n >= 1 && n <= 256, "ADDP_THREADS: expected 1..256, found '", text, "'");
    return n;
  }
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return cores < 1 ? 1 : cores > 256 ? 256 : cores;
}

std::unique_ptr<Team>& team() {
  static std::unique_ptr<Team> instance = std::make_unique<Team>(default_threads());
  return instance;
}

}  // namespace

void set_num_threads(int threads) {
  check_as(ErrorKind::usage, threads >= 1 && threads <= 256, "threads: expected 1..256, found ", threads);
  check(!inside_task, "threads: cannot be changed from inside a parallel task");
  if (team()->size() == threads) return;
  team().reset();
  team() = std::make_unique<Team>(threads);
}

int num_threads() { return team()->size(); }

namespace detail {

void run_tasks(int64_t tasks, void (*call)(void*, int64_t), void* context) {
  if (tasks <= 0) return;
  if (tasks == 1 || inside_task || team()->size() == 1) {
    for (int64_t task = 0; task < tasks; ++task) call(context, task);
    return;
  }
  team()->run(tasks, call, context);
}

}  // namespace detail
}  // namespace addp
