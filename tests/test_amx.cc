// Products on the tile unit of Intel's cores (tensor/cpu_amx.h), where there is one: as exact as float32, for every
// shape and order, the same bits for any number of threads; and the reference values through it alone.
#include "tensor/cpu_amx.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "tensor/dispatch.h"
#include "tensor/parallel.h"
#include "tests/compare.h"
#include "tests/drive.h"

namespace addp {
namespace {

bool here() {
  if (!cpu::has_amx()) MESSAGE("this processor or build has no AMX: nothing to test");
  return cpu::has_amx();
}

struct ProductCase {
  int64_t M, N, K;
  bool trans_a = false, trans_b = false, accumulate = false, bias = false;
};

struct Operands {
  Tensor a, b, c, bias;
  explicit Operands(const ProductCase& p, double offset = 0)
      : a(random_tensor({p.M, p.K}, 1, kFloat)),
        b(random_tensor({p.K, p.N}, 2, kFloat)),
        c(random_tensor({p.M, p.N}, 3, kFloat)),
        bias(random_tensor({p.N}, 4, kFloat)) {
    for (Tensor* t : {&a, &b}) {
      for (int64_t i = 0; i < t->numel(); ++i) t->ptr<float>()[i] += static_cast<float>(offset);
    }
  }
  static constexpr Options kFloat{DType::f32, Device::cpu};

  Tensor by_gemm(const ProductCase& p) const {  // which takes AMX only where that pays
    Tensor result = clone(c);
    kernel::gemm<float>(Cpu{}, result.ptr<float>(), a.ptr<float>(), b.ptr<float>(), p.M, p.N, p.K, p.trans_a, p.trans_b,
                        p.accumulate, 1, 0, 0, 0);
    return result;
  }
  Tensor multiply(const ProductCase& p) const {
    Tensor result = clone(c);
    cpu::amx_multiply(result.ptr<float>(), a.ptr<float>(), b.ptr<float>(), p.bias ? bias.ptr<float>() : nullptr, p.M,
                      p.N, p.K, p.trans_a, p.trans_b, p.accumulate);
    return result;
  }
};

// Errors of C relative to the sum of the products' magnitudes, as the largest and as the root of the mean square.
struct Errors {
  double largest = 0, mean = 0;
};
Errors errors_of(const ProductCase& p, const Operands& x, const Tensor& found) {
  // In double: the result, and the same of magnitudes.
  std::vector<double> expected, magnitude;
  for (std::vector<double>* y : {&expected, &magnitude}) {
    const auto values = [&](const Tensor& t) {
      std::vector<double> v(t.ptr<float>(), t.ptr<float>() + t.numel());
      if (y == &magnitude) std::ranges::transform(v, v.begin(), [](double d) { return std::abs(d); });
      return v;
    };
    const std::vector<double> a = values(x.a), b = values(x.b), bias = values(x.bias);
    *y = values(x.c);
    kernel::gemm<double>(Cpu{}, y->data(), a.data(), b.data(), p.M, p.N, p.K, p.trans_a, p.trans_b, p.accumulate, 1, 0,
                         0, 0);
    for (int64_t i = 0; p.bias && i < p.M * p.N; ++i) (*y)[i] += bias[i % p.N];
  }
  Errors errors;
  for (int64_t i = 0; i < p.M * p.N; ++i) {
    const double error = std::abs(found.ptr<float>()[i] - expected[i]) / magnitude[i];
    errors.largest = std::max(errors.largest, error);
    errors.mean += error * error / static_cast<double>(p.M * p.N);
  }
  errors.mean = std::sqrt(errors.mean);
  return errors;
}

}  // namespace

TEST_CASE("amx: products are as exact as float32's, for every order and ragged size") {
  if (!here()) return;
  // Rounding one number to float32 costs up to 6e-8; sums on the vector units reach 1.8e-7 (mean) and 8e-7.
  const auto exact = [](const ProductCase& p, double offset) {
    INFO(p.M, " x ", p.N, " x ", p.K, ", transposed ", p.trans_a, p.trans_b, ", offset ", offset);
    const Operands x(p, offset);
    const Errors errors = errors_of(p, x, x.multiply(p));
    CHECK(errors.largest < 5e-7);
    CHECK(errors.mean < 1e-7);
  };
  for (const auto& [M, N, K] : {std::array<int64_t, 3>{1, 1, 1},
                                {16, 32, 31},
                                {17, 33, 65},
                                {70, 45, 513},
                                {33, 1100, 40},
                                {129, 31, 600},
                                {40, 70, 1100},
                                {90, 37, 2100},
                                {64, 64, 4300},
                                {300, 500, 700},
                                {1100, 1090, 33}}) {
    for (int order = 0; order < 4; ++order) {
      for (double offset : {0.0, 3.0}) {  // with an offset nothing cancels, and roundings add up
        ProductCase p{M, N, K, (order & 1) != 0, (order & 2) != 0};
        exact(p, offset);
        p.accumulate = true;
        exact(p, offset);
        p.accumulate = false, p.bias = true;
        exact(p, offset);
      }
    }
  }
}

TEST_CASE("amx: errors are smaller than the vector units'") {
  if (!here() || cpu::amx_pays(1, 1, 1)) return;
  for (int64_t K : {64, 500, 2000}) {
    for (double offset : {0.0, 3.0}) {
      INFO("sum of ", K, ", offset ", offset);
      const ProductCase p{60, 120, K};
      const Operands x(p, offset);
      const Errors ours = errors_of(p, x, x.multiply(p)), vectors = errors_of(p, x, x.by_gemm(p));
      CHECK(ours.mean < 0.75 * vectors.mean);
      CHECK(ours.largest < vectors.largest);
    }
  }
}

TEST_CASE("amx: the same bits for any number of threads") {
  if (!here()) return;
  const int before = num_threads();
  for (const ProductCase& p : {ProductCase{300, 130, 70}, {130, 1300, 600, true}, {100, 140, 2000, true}}) {
    const Operands x(p);
    std::vector<Tensor> results;
    for (int threads : {1, 2, 5}) {
      set_num_threads(threads);
      results.push_back(x.multiply(p));
    }
    for (const Tensor& y : results)
      CHECK(std::memcmp(y.ptr<float>(), results[0].ptr<float>(), static_cast<size_t>(y.bytes())) == 0);
  }
  set_num_threads(before);
}

TEST_CASE("amx: large products take it, small ones do not") {
  if (!here() || cpu::amx_pays(1, 1, 1)) return;
  for (const ProductCase& p : {ProductCase{128, 64, 64}, {64, 128, 64}, {300, 130, 70, true, true}}) {
    const Operands x(p);
    CHECK(cpu::amx_pays(p.M, p.N, p.K));
    CHECK(largest_difference(x.by_gemm(p), x.multiply(p)) == 0);
  }
  for (const ProductCase& p : {ProductCase{63, 128, 64}, {64, 127, 64}, {64, 128, 63}}) {
    const Operands x(p);
    CHECK(!cpu::amx_pays(p.M, p.N, p.K));
    CHECK(largest_difference(x.by_gemm(p), x.multiply(p)) > 0);
  }
}

TEST_CASE("amx: NaN and infinity reach their row and no other, small numbers are not lost") {
  if (!here()) return;
  const ProductCase p{40, 64, 96};
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::max()}) {
    Operands x(p);
    x.a.ptr<float>()[7 * p.K + 50] = bad;
    const Tensor y = x.multiply(p);
    for (int64_t i = 0; i < y.numel(); ++i) CHECK(std::isnan(y.ptr<float>()[i]) == (i / p.N == 7));
  }
  Operands small(p);
  for (Tensor* t : {&small.a, &small.b}) {
    for (int64_t i = 0; i < t->numel(); ++i) t->ptr<float>()[i] *= 1e-15f;
  }
  CHECK(errors_of(p, small, small.multiply(p)).largest < 5e-7);
}

TEST_CASE("amx: every reference value is reproduced with all products on it") {
  if (!here()) return;
  const Outcome outcome = Process({"/usr/bin/env", "ADDP_AMX=always", built("addp"), "parity", "tests/golden"}).wait();
  INFO(outcome.out, outcome.err);
  CHECK(outcome.code == 0);
}

TEST_CASE("amx: a wrong choice is named before anything begins") {
  ScratchFolder folder;
  for (const Words& command : {Words{"doctor"}, train_tiny("vqgan", folder / "run", 1)}) {
    const Outcome outcome = Process(Words{"/usr/bin/env", "ADDP_AMX=maybe", built("addp")} + command).wait();
    CHECK(outcome.code == 2);
    CHECK(outcome.err == "error: ADDP_AMX: expected never or always, found 'maybe'\n");
  }
  CHECK(count_files(folder.path) == 0);
}

}  // namespace addp
