// tensor/ and autograd/: shapes, memory, threads, random numbers, the graph.
#include <doctest/doctest.h>

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>

#include "autograd/ops.h"
#include "tensor/allocator.h"
#include "tensor/parallel.h"
#include "tensor/profile.h"
#include "tensor/random.h"
#include "tests/check_op.h"

using namespace addp;

TEST_CASE("shape: products that overflow and missing axes are refused") {
  CHECK(Shape{2, 3, 4}.numel() == 24);
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{2, 0, 4}.numel() == 0);
  CHECK(Shape{2, 3}.dim(-1) == 3);
  CHECK_THROWS_AS((Shape{int64_t{1} << 40, int64_t{1} << 40}.numel()), Error);
  CHECK_THROWS_AS((Shape{2, -1}.numel()), Error);
  CHECK_THROWS_AS((Shape{2, 3}.dim(2)), Error);
}

TEST_CASE("tensor: views share, clones do not, wrong uses throw") {
  const Tensor x = from_vector<float>({0, 1, 2, 3, 4, 5}, {2, 3});
  const Tensor y = x.reshape({-1, 2});
  CHECK(y.shape() == Shape{3, 2});
  const Tensor row = x.view(3, {3});
  fill(row, 9);
  CHECK(to_vector<float>(x) == std::vector<float>{0, 1, 2, 9, 9, 9});
  const Tensor z = clone(x);
  fill(x, 1);
  CHECK(to_vector<double>(z) == std::vector<double>{0, 1, 2, 9, 9, 9});
  CHECK_THROWS_AS(x.reshape({4}), Error);
  CHECK_THROWS_AS(x.view(4, {3}), Error);
  CHECK_THROWS_AS(x.ptr<double>(), Error);
  CHECK_THROWS_AS(x.item(), Error);
  CHECK(all_finite(x));
  fill(x.view(1, {1}), NAN);
  CHECK(!all_finite(x));
}

TEST_CASE("allocator: freed blocks come back, the peak is counted") {
  const int64_t before = memory_statistics().in_use_bytes;
  reset_peak_memory();
  { const Tensor x = empty({1 << 20}); }
  CHECK(memory_statistics().in_use_bytes == before);
  CHECK(memory_statistics().peak_bytes >= before + (4 << 20));
#ifndef __SANITIZE_ADDRESS__
  const int64_t calls = memory_statistics().system_calls;
  for (int i = 0; i < 10; ++i) const Tensor x = empty({1 << 20});
  CHECK(memory_statistics().system_calls == calls);
#endif
}

#ifndef __SANITIZE_ADDRESS__
TEST_CASE("allocator: large blocks share an arena, and what is freed grows together again") {
  constexpr int64_t kMebibyte = int64_t{1} << 20;
  Rng rng(5);
  std::vector<std::pair<char*, int64_t>> held;
  const auto total = [] { return memory_statistics().in_use_bytes + memory_statistics().cached_bytes; };
  for (int i = 0; i < 400; ++i) {
    if (held.size() > 12) {
      const size_t at = static_cast<size_t>(rng.uniform() * static_cast<double>(held.size()));
      CHECK(std::all_of(held[at].first, held[at].first + held[at].second,
                        [&](char c) { return c == held[at].first[0]; }));
      deallocate(held[at].first, held[at].second);
      held.erase(held.begin() + static_cast<int64_t>(at));
    }
    const auto bytes = static_cast<int64_t>(rng.uniform() * static_cast<double>(i % 3 == 0 ? 100000 : kMebibyte));
    char* data = static_cast<char*>(allocate(bytes));
    CHECK(reinterpret_cast<uintptr_t>(data) % 64 == 0);
    std::fill_n(data, bytes, static_cast<char>(i));  // blocks that overlap would be overwritten
    held.emplace_back(data, bytes);
  }
  for (const auto& [data, bytes] : held) deallocate(data, bytes);
  const int64_t calls = memory_statistics().system_calls, before = total();
  deallocate(allocate(40 * kMebibyte), 40 * kMebibyte);  // of the many small blocks' ranges
  CHECK(memory_statistics().system_calls <= calls + 1);
  const int64_t in_use = memory_statistics().in_use_bytes;
  release_cached_memory();
  CHECK(memory_statistics().in_use_bytes == in_use);
  CHECK(memory_statistics().cached_bytes < before);
  deallocate(allocate(210 * kMebibyte), 210 * kMebibyte);  // more than the arena grows by on its own
  std::vector<void*> thirds;
  for (int i = 0; i < 3; ++i) thirds.push_back(allocate(70 * kMebibyte));
  for (int i : {0, 2, 1}) deallocate(thirds[i], 70 * kMebibyte);
  const int64_t again = memory_statistics().system_calls;
  deallocate(allocate(210 * kMebibyte), 210 * kMebibyte);
  CHECK(memory_statistics().system_calls == again);
}
#endif

#ifndef __SANITIZE_ADDRESS__
TEST_CASE("allocator: what is released is no longer resident, and is there again when asked for") {
  const auto resident = [] {
    int64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> pages;
    return pages * sysconf(_SC_PAGESIZE);
  };
  constexpr int64_t kBytes = int64_t{200} << 20;
  release_cached_memory();
  const int64_t before = resident();
  void* data = allocate(kBytes);
  std::memset(data, 1, kBytes);
  CHECK(resident() > before + kBytes * 9 / 10);
  deallocate(data, kBytes);
  CHECK(resident() > before + kBytes * 9 / 10);  // kept for reuse
  release_cached_memory();
  CHECK(resident() < before + kBytes / 10);
  data = allocate(kBytes);
  CHECK(*static_cast<char*>(data) == 0);
  deallocate(data, kBytes);
}
#endif

TEST_CASE("parallel_for: every task once, nested calls, exceptions") {
  const int before = num_threads();
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    std::vector<std::atomic<int>> count(1000);
    parallel_for(1000, [&](int64_t i) { parallel_for(3, [&](int64_t) { ++count[i]; }); });
    for (auto& c : count) CHECK(c == 3);
    CHECK_THROWS_AS(parallel_for(100, [](int64_t i) { check(i != 57, "task 57"); }), Error);
  }
  set_num_threads(before);
  CHECK_THROWS_AS(set_num_threads(0), Error);
}

TEST_CASE("parallel_for: short calls after long pauses, from several threads") {
  const int before = num_threads();
  cpu_set_t cores;
  sched_getaffinity(0, sizeof cores, &cores);
  for (int threads : {2, 3}) {
    set_num_threads(threads);
    std::atomic<int> sum{0}, confined{0};
    const auto work = [&](int calls) {
      for (int i = 0; i < calls; ++i) {
        if (i % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the team falls asleep
        parallel_for(4, [&](int64_t task) {
          sum += static_cast<int>(task);
          cpu_set_t own;
          sched_getaffinity(0, sizeof own, &own);
          if (!CPU_EQUAL(&own, &cores)) ++confined;  // the team's threads are not bound to cores
        });
      }
    };
    std::thread other(work, 400);
    work(400);
    other.join();
    CHECK(sum == 800 * 6);
    CHECK(confined == 0);
  }
  set_num_threads(before);
}

TEST_CASE("philox: the published test vectors") {
  // Random123, kat_vectors: philox4x32 10 rounds.
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == PhiloxWords{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint32_t f = 0xffffffff;
  CHECK(philox({f, f, f, f}, {f, f}) == PhiloxWords{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("rng: kernels and scalar draws agree, streams differ, moments are right") {
  Rng a(5, 3), b(5, 3);
  const std::vector<double> u = to_vector<double>(a.uniform({1000}, {DType::f64, Device::cpu}));
  for (double x : u) CHECK(x == b.uniform());
  const std::vector<double> n = to_vector<double>(a.normal({20001}, {DType::f64, Device::cpu}));
  double mean = 0, square = 0;
  for (double x : n) {
    CHECK(x == b.normal());
    mean += x / n.size();
    square += x * x / n.size();
  }
  CHECK(std::abs(mean) < 0.03);
  CHECK(std::abs(square - 1) < 0.04);
  CHECK(a.position() == 21001);
  CHECK(Rng(5).fork("a").uniform() != Rng(5).fork("b").uniform());
  CHECK(Rng(5).fork("a").uniform() == Rng(5).fork("a").uniform());
  Rng c(1);
  const std::vector<int64_t> order = permutation(50, c);
  CHECK(std::set<int64_t>(order.begin(), order.end()).size() == 50);
}

TEST_CASE("backward: shared inputs add up, the graph is used once, memory is returned") {
  Var x(from_vector<double>({1, 2, 3}, {3}), true);
  const Var y = mul(x, x);
  const Var loss = sum(add(y, x));
  CHECK(to_vector<double>(gradient(loss, y)) == std::vector<double>{1, 1, 1});
  CHECK(to_vector<double>(gradient(loss, x)) == std::vector<double>{3, 5, 7});
  CHECK(!x.grad().defined());
  backward(loss);
  CHECK(to_vector<double>(x.grad()) == std::vector<double>{3, 5, 7});
  CHECK_THROWS_AS(backward(loss), Error);
  backward(sum(x));
  CHECK(to_vector<double>(x.grad()) == std::vector<double>{4, 6, 8});
  CHECK_THROWS_AS(backward(y), Error);
}

TEST_CASE("gradient: zero where the loss does not depend on the variable, constants stay untouched") {
  Var x(from_vector<double>({1, 2}, {2}), true), z(from_vector<double>({1, 2}, {2}), true);
  CHECK(to_vector<double>(gradient(sum(x), z)) == std::vector<double>{0, 0});
  const Var constant = detach(x);
  CHECK_THROWS_AS(backward(sum(constant)), Error);
  {
    NoGrad no_grad;
    CHECK(!sum(x).needs_grad());
  }
  CHECK(sum(x).needs_grad());
}

TEST_CASE("backward: the graph keeps only the values that a closure reads") {
  Var x(full({1024}, 0.5, {DType::f64, Device::cpu}), true);
  const int64_t before = memory_statistics().in_use_bytes, one = x.value().bytes();
  const auto held = [&] { return memory_statistics().in_use_bytes - before; };
  Var y = affine(reshape(affine(x, 2, 1), {32, 32}), 3, 0);
  CHECK(held() == one);  // y itself
  CHECK(y.node().inputs[0].shape() == Shape{32, 32});
  CHECK_THROWS_AS(y.node().inputs[0].value(), Error);
  y = sum_axis(add(square(y), y), 0);
  CHECK(held() == one + 256);  // the operand of the square, and the new y
  backward(sum(y));
  CHECK(to_vector<double>(x.grad()) == std::vector<double>(1024, 6 * (2 * 6 + 1)));
  y = Var();
  CHECK(held() == one);  // x's gradient
}

TEST_CASE("backward: what is cheap to compute again is not kept, and its gradients have the same bits") {
  Rng rng(3);
  const Tensor x0 = rng.normal({40, 64}), w0 = rng.normal({64, 64}), v0 = rng.normal({64});
  const int64_t before = memory_statistics().in_use_bytes, one = x0.bytes();
  // Gradients of x, of the norm and of both layers; `keep`: what the layers read comes from an op that must be kept.
  const auto gradients = [&](bool keep, int64_t held_at_most) {
    std::vector<Var> leaves{Var(x0, true), Var(w0, true), Var(v0, true), Var(v0, true), Var(w0, true)};
    const auto pass = [&](const Var& y) { return keep ? affine(y, 1, 0) : y; };
    const Var h = linear(pass(layer_norm(leaves[0], leaves[2], leaves[3], 1e-6)), leaves[1]);
    const Var loss = sum(square(linear(pass(bias_gelu(h, leaves[2])), leaves[4])));
    CHECK(memory_statistics().in_use_bytes - before <= held_at_most);
    const Tensor first = gradient(loss, leaves[0]);  // the graph is used twice
    backward(loss);
    std::vector<std::vector<float>> result{to_vector<float>(first)};
    for (const Var& leaf : leaves) result.push_back(to_vector<float>(leaf.grad()));
    return result;
  };
  const auto recomputed = gradients(false, 2 * one + 1024);  // h, the operand of the square, two moments a row
  CHECK(recomputed == gradients(true, 4 * one + 1024));
  CHECK(recomputed[0] == recomputed[1]);
  CHECK(memory_statistics().in_use_bytes == before);

  const Var x(x0, true), y = square(x);
  CHECK(x.saved().recall().raw() == x0.raw());
  CHECK(y.saved().recall().raw() == y.value().raw());
  CHECK_THROWS_AS(y.edge().recall(), Error);
}

TEST_CASE("backward: a linear layer's result is computed again, once a pass, where it is asked to be") {
  Rng rng(3);
  const Tensor x0 = rng.normal({40, 64}), w0 = rng.normal({256, 64}), b0 = rng.normal({256}),
               v0 = rng.normal({64, 256});
  const int64_t before = memory_statistics().in_use_bytes, one = x0.bytes();
  const double product = 2.0 * 40 * 64 * 256;
  for (const bool trains_v : {true, false}) {
    const auto gradients = [&](bool recompute) {
      std::vector<Var> leaves{Var(x0, true), Var(w0, true), Var(b0, true), Var(v0, trains_v)};
      const Var loss = sum(linear(bias_gelu(linear(leaves[0], leaves[1], {}, recompute), leaves[2]), leaves[3]));
      CHECK(memory_statistics().in_use_bytes - before <= (recompute ? 0 : 4 * one) + 1024);
      const Tensor first = gradient(loss, leaves[0]);  // the graph is used twice
      Profile profile;
      {
        const ProfiledStep step(&profile);
        backward(loss);
      }
      CHECK(profile.total_cost().flops == (3 + (trains_v ? 1 : 0) + (recompute ? 1 : 0)) * product);
      std::vector<std::vector<float>> result{to_vector<float>(first)};
      for (const Var& leaf : leaves) {
        if (leaf.needs_grad()) result.push_back(to_vector<float>(leaf.grad()));
      }
      return result;
    };
    const auto recomputed = gradients(true);
    CHECK(recomputed == gradients(false));
    CHECK(recomputed[0] == recomputed[1]);
    CHECK(memory_statistics().in_use_bytes == before);
  }
}

TEST_CASE("backward: a chain of a hundred thousand ops needs no stack, before or after the pass") {
  Var x(from_vector<double>({1}, {1}), true);
  Var y = x;
  for (int i = 0; i < 100000; ++i) y = affine(y, 1, 0.5);
  { const Var dropped = affine(y, 1, 0); }
  backward(sum(y));
  CHECK(x.grad().item() == 1);
  Var never_used = x;
  for (int i = 0; i < 100000; ++i) never_used = affine(never_used, 1, 0.5);
}

TEST_CASE("gradcheck: finds a wrong gradient and names it") {
  Var x(from_vector<double>({0.5, 2, 3}, {3}), true);
  auto wrong = [&] {
    Tensor y = square(detach(x)).value();
    return sum(record("wrong", y, {x}, [y](const Tensor& dy) { return Gradients{mul(Var(dy), Var(y)).value()}; }));
  };
  const GradcheckResult bad = gradcheck(wrong, {{"x", x}});
  CHECK(bad.worst_error > 0.1);
  CHECK(bad.name == "x");
  CHECK(gradcheck([&] { return sum(square(x)); }, {{"x", x}}).worst_error < 1e-9);
  CHECK(to_vector<double>(x.value()) == std::vector<double>{0.5, 2, 3});
}
