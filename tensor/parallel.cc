// The team of worker threads, woken for each parallel_for. A thread first takes the tasks of its own share, a
// contiguous range, and then helps the others: so from one kernel to the next the same part of a tensor stays in the
// same core's cache, and nobody waits for a slow core.
#include "tensor/parallel.h"

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
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(static_cast<size_t>(i)); });
    // Waking a sleeping thread costs more than a small kernel; spinning pays only with a core for every thread.
    spin_ = threads <= static_cast<int>(std::thread::hardware_concurrency()) ? 4000 : 0;
  }

  ~Team() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int64_t tasks, void (*call)(void*, int64_t), void* context) {
    std::lock_guard only_one(run_mutex_);
    {
      std::lock_guard lock(mutex_);
      const int64_t n = size();
      for (int64_t i = 0; i < n; ++i) {
        shares_[static_cast<size_t>(i)].end = tasks * (i + 1) / n;
        shares_[static_cast<size_t>(i)].next.store(tasks * i / n, std::memory_order_relaxed);
      }
      call_ = call;
      context_ = context;
      error_ = nullptr;
      busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take_tasks(0);
    for (int i = 0; i < spin_ && busy_.load(std::memory_order_acquire) != 0; ++i) _mm_pause();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_.load(std::memory_order_acquire) == 0; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // The tasks of one kernel call that a thread takes first. On a cache line of its own.
  struct alignas(64) Share {
    Share() = default;
    Share(const Share&) {}
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void take_tasks(size_t self) {
    inside_task = true;
    for (size_t i = 0; i < shares_.size(); ++i) {
      Share& share = shares_[(self + i) % shares_.size()];
      for (int64_t task; (task = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
        try {
          call_(context_, task);
        } catch (...) {
          std::lock_guard lock(mutex_);
          if (!error_) error_ = std::current_exception();
          for (Share& other : shares_) other.next.store(other.end, std::memory_order_relaxed);
        }
      }
    }
    inside_task = false;
  }

  void work(size_t self) {
    flush_denormals();
    uint64_t seen = 0;
    while (true) {
      for (int i = 0; i < spin_ && generation_.load(std::memory_order_acquire) == seen; ++i) _mm_pause();
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        seen = generation_.load(std::memory_order_acquire);
        if (stop_) return;
      }
      take_tasks(self);
      if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        std::lock_guard lock(mutex_);
        done_.notify_one();
      }
    }
  }

  std::vector<Share> shares_;
  std::vector<std::thread> workers_;
  std::mutex run_mutex_, mutex_;
  std::condition_variable wake_, done_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> busy_{0};
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
