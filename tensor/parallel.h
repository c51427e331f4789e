// The one team of threads. Work is split into tasks by problem size, never by the number of threads, and each task
// writes its own outputs, so results are the same bits for any number of threads.
#pragma once
#include <cstdint>
#include <type_traits>

namespace addp {

// Number of threads that work, the caller included; at start ADDP_THREADS, else the number of cores. Range 1..256.
// Not to be called from inside a task.
void set_num_threads(int threads);
int num_threads();

namespace detail {
void run_tasks(int64_t tasks, void (*call)(void*, int64_t), void* context);
}

// Calls f(task) for every task in [0, tasks), in any order, on all threads, and returns when all are done. The first
// exception thrown by a task is rethrown here. Called from inside a task, it runs the tasks in place.
template <class F>
void parallel_for(int64_t tasks, F&& f) {
  using Function = std::remove_reference_t<F>;
  detail::run_tasks(
      tasks, [](void* context, int64_t task) { (*static_cast<Function*>(context))(task); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

// Splits [0, n) into ranges of `grain` elements (the last may be shorter) and calls f(begin, end) for each.
template <class F>
void parallel_ranges(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  const int64_t tasks = (n + grain - 1) / grain;
  if (tasks == 1) return f(int64_t{0}, n);
  parallel_for(tasks, [&](int64_t task) {
    const int64_t begin = task * grain;
    f(begin, begin + grain < n ? begin + grain : n);
  });
}

}  // namespace addp
