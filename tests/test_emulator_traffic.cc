// Memory traffic of the memory-bound CUDA kernels, counted by the emulator in race mode (make test-deep): the bytes
// that all launches of an operation touch, each address once a launch (a GPU's L2 cache holds the rest), against the
// least that the operation must read and write. Below 1.5 times it for each.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "cuda/emulator/emulator.h"
#include "tensor/dispatch.h"

namespace addp {
namespace {

constexpr double kMostExcess = 1.5;
constexpr int64_t N = 64, D = 192;  // rows, width
constexpr int64_t B = 2, C = 16, S = 256, G = 4;

float* ones_on_device(int64_t n) {
  static std::vector<Tensor> kept;  // until the test is over
  kept.push_back(ones({n}, {DType::f32, Device::cuda}));
  return kept.back().ptr<float>();
}

struct Traffic {
  double moved = 0;
  std::string kernels;
};

Traffic measure(const std::function<void(Cuda)>& operation) {
  to_vector<float>(ones({1}, {DType::f32, Device::cuda}));  // everything before is done
  emulator::reset_counters();
  operation(current_cuda());
  to_vector<float>(ones({1}, {DType::f32, Device::cuda}));
  Traffic traffic;
  for (const auto& [name, counts] : emulator::counters()) {
    if (name.rfind("fill_kernel", 0) == 0) continue;  // of the ones above
    const uint64_t bytes = counts.bytes_fetched + counts.bytes_stored;
    traffic.moved += static_cast<double>(bytes);
    traffic.kernels += concat_text(name, ": ", bytes, "  ");
  }
  return traffic;
}

// floats: how many the operation must at least read and write.
void check_traffic(const char* name, int64_t floats, const std::function<void(Cuda)>& operation) {
  const Traffic traffic = measure(operation);
  const double excess = traffic.moved / (4.0 * static_cast<double>(floats));
  CAPTURE(std::string(name));
  CAPTURE(traffic.kernels);
  MESSAGE(std::string(name), ": ", excess, " times the least traffic");
  CHECK(excess > 0.9);
  CHECK(excess < kMostExcess);
}

TEST_CASE("traffic: memory-bound kernels move little more than they must") {
  if (!emulator::race_mode()) return;
  constexpr int64_t n = N * D;
  float *x = ones_on_device(n), *y = ones_on_device(n), *dx = ones_on_device(n), *dy = ones_on_device(n);
  float *w = ones_on_device(D), *b = ones_on_device(D), *dw = ones_on_device(D), *db = ones_on_device(D);
  float *mean = ones_on_device(N), *rstd = ones_on_device(N);
  const Tensor halves = full({3}, 0.5, {DType::f64, Device::cuda});
  const double* schedule = halves.ptr<double>();
  using namespace kernel;
  check_traffic("add", 3 * n, [&](Cuda d) { binary<float>(d, Binary::add, y, x, dx, n, n); });
  check_traffic("add_scaled", 3 * n, [&](Cuda d) { add_scaled<float>(d, y, x, n, 0.5); });
  check_traffic("silu", 2 * n, [&](Cuda d) { unary_fwd<float>(d, Unary::silu, y, x, n, 0, 0); });
  check_traffic("silu, backward", 3 * n, [&](Cuda d) { unary_bwd<float>(d, Unary::silu, dx, dy, x, n, 0, 0); });
  check_traffic("bias_gelu", 2 * n + D, [&](Cuda d) { bias_gelu_fwd<float>(d, y, x, b, N, D); });
  check_traffic("bias_gelu, backward", 3 * n + D, [&](Cuda d) { bias_gelu_bwd<float>(d, dx, dy, x, b, N, D); });
  check_traffic("sum_axis, rows", n + N, [&](Cuda d) { sum_axis<float>(d, mean, x, N, D, 1, 1); });
  check_traffic("sum_axis, columns", n + D, [&](Cuda d) { sum_axis<float>(d, db, x, 1, N, D, 1); });
  check_traffic("layer_norm", 2 * n + 2 * D + 2 * N,
                [&](Cuda d) { layer_norm_fwd<float>(d, y, mean, rstd, x, w, b, N, D, 1e-6); });
  check_traffic("layer_norm, backward", 3 * n + 3 * D + 2 * N,
                [&](Cuda d) { layer_norm_bwd<float>(d, dx, dw, db, dy, x, w, mean, rstd, N, D); });
  check_traffic("softmax", 2 * n, [&](Cuda d) { softmax_fwd<float>(d, y, x, N, D); });
  check_traffic("softmax, backward", 3 * n, [&](Cuda d) { softmax_bwd<float>(d, dx, dy, y, N, D); });
  check_traffic("soft_cross_entropy", 3 * n + N,
                [&](Cuda d) { soft_cross_entropy<float>(d, mean, dx, x, y, rstd, N, D, D, 0.1); });
  check_traffic("dropout", 2 * n, [&](Cuda d) { dropout<float>(d, y, x, n, 1, 0.1, 1, 2, 3); });
  check_traffic("adamw", 7 * n, [&](Cuda d) {
    adamw<float>(d, x, y, dx, dy, n, {0.9, 0.95, 1e-8, 0.05, 1, 0}, schedule, schedule);
  });
  check_traffic("lerp", 3 * n, [&](Cuda d) { lerp<float>(d, y, x, n, 0.1); });
}

TEST_CASE("traffic: group norm") {
  if (!emulator::race_mode()) return;
  constexpr int64_t n = B * C * S;
  float *x = ones_on_device(n), *y = ones_on_device(n), *dy = ones_on_device(n);
  float *w = ones_on_device(C), *b = ones_on_device(C), *dw = ones_on_device(C), *db = ones_on_device(C);
  float *mean = ones_on_device(B * G), *rstd = ones_on_device(B * G);
  using namespace kernel;
  check_traffic("group_norm", 2 * n,
                [&](Cuda d) { group_norm_fwd<float>(d, y, mean, rstd, x, w, b, B, C, S, G, 1e-6, true); });
  check_traffic("group_norm, backward", 3 * n,
                [&](Cuda d) { group_norm_bwd<float>(d, y, dw, db, dy, x, w, b, mean, rstd, B, C, S, G, true); });
}

}  // namespace
}  // namespace addp
