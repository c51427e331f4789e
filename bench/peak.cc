// Peak rates, by the vectors and the team of threads that the kernels use.
#include "bench/peak.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "tensor/cpu_math.h"
#include "tensor/parallel.h"
#include "tensor/tensor.h"

namespace addp {
namespace {

constexpr int64_t kSums = 12;  // in flight: more than latency times units
constexpr int64_t kRounds = 1 << 20;

// Returns a number that depends on every operation, so that none is left out; sums must not begin alike, nor at 1.
float multiply_add() {
  const cpu::VecF factor = cpu::splat(0.999f), term = cpu::splat(0.001f);
  cpu::VecF sums[kSums];
  for (int64_t s = 0; s < kSums; ++s) sums[s] = cpu::splat(2 + static_cast<float>(s));
  for (int64_t round = 0; round < kRounds; ++round) {
    for (int64_t s = 0; s < kSums; ++s) sums[s] = sums[s] * factor + term;
  }
  for (int64_t s = 1; s < kSums; ++s) sums[0] += sums[s];
  return cpu::sum_lanes<float>(sums[0]);
}

// Work per second, from the fastest of several runs.
template <class F>
double best_rate(int runs, double work, F&& f) {
  double best = 0;
  for (int i = 0; i < runs; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    best = std::max(best, work / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

}  // namespace

double fma_peak() {
  const int64_t tasks = 4 * num_threads();
  std::vector<float> results(static_cast<size_t>(tasks));
  const double flops = 2.0 * static_cast<double>(tasks * kRounds * kSums * cpu::kLanes<float>);
  return best_rate(5, flops, [&] {
    parallel_for(tasks, [&](int64_t task) { results[static_cast<size_t>(task)] = multiply_add(); });
  });
}

double copy_rate() {
  constexpr int64_t kBytes = 12'800'000, kGrain = 100'000;
  const Tensor from = full({kBytes}, 1, {DType::u8, Device::cpu}), to = full({kBytes}, 2, {DType::u8, Device::cpu});
  const char* source = static_cast<const char*>(from.raw());
  char* target = static_cast<char*>(to.raw());
  return best_rate(50, 2.0 * kBytes, [&] {
    parallel_ranges(kBytes, kGrain,
                    [&](int64_t begin, int64_t end) { std::memcpy(target + begin, source + begin, end - begin); });
  });
}

}  // namespace addp
