// Matrix products of the device with rounded inputs: --matmul tf32 and bf16.
#include <cuda_runtime.h>  // says whether this is the emulator
#include <doctest/doctest.h>

#include <bit>
#include <cmath>

#include "autograd/ops.h"
#include "examples/run_config.h"
#include "tensor/dispatch.h"
#include "tensor/matmul_precision.h"
#include "tests/compare.h"
#include "tests/drive.h"

using namespace addp;

namespace {

constexpr Options kOn{DType::f32, Device::cuda};

// For the length of a scope.
struct WithPrecision {
  explicit WithPrecision(MatmulPrecision precision) { set_matmul_precision(precision); }
  ~WithPrecision() { set_matmul_precision(MatmulPrecision::f32); }
};

// x with `bits` bits behind the point, to nearest; ties to even or away from 0.
float rounded(float x, int bits, bool ties_to_even) {
  int exponent = 0;
  const double unit = std::ldexp(1.0, 1 + bits), scaled = std::frexp(x, &exponent) * unit;
  const double whole = ties_to_even ? std::nearbyint(scaled) : std::round(scaled);
  return static_cast<float>(std::ldexp(whole / unit, exponent));
}

[[maybe_unused]] Tensor rounded(const Tensor& x, int bits, bool ties_to_even) {  // by tests of the emulator only
  std::vector<float> values = to_vector<float>(x);
  for (float& v : values) v = rounded(v, bits, ties_to_even);
  return from_vector(values, x.shape());
}

Tensor product(const Tensor& a, const Tensor& b, bool trans_a, bool trans_b, Options on) {
  return to(matmul(Var(to(a, on)), Var(to(b, on)), trans_a, trans_b).value(), {DType::f64, Device::cpu});
}

struct Case {
  MatmulPrecision precision;
  int bits;
  bool ties_to_even;
};
const Case kCases[] = {{MatmulPrecision::tf32, 10, false}, {MatmulPrecision::bf16, 7, true}};
constexpr Options kExact{DType::f64, Device::cpu};

}  // namespace

TEST_CASE("cuda: products with rounded inputs differ from float32 by that rounding and no more") {
  Rng rng(5);
  // Odd sizes, so that conversions have a rest and leading dimensions differ; one pair, and a batch of three.
  for (const int64_t P : {1, 3}) {
    for (const bool trans_a : {false, true}) {
      for (const bool trans_b : {false, true}) {
        const auto shape = [P](int64_t rows, int64_t columns, bool transposed) {
          const Shape s = transposed ? Shape{columns, rows} : Shape{rows, columns};
          return P == 1 ? s : Shape{P, s[0], s[1]};
        };
        const Tensor a = rng.normal(shape(7, 33, trans_a)), b = rng.normal(shape(33, 5, trans_b));
        const Tensor plain = product(a, b, trans_a, trans_b, kOn), exact = product(a, b, trans_a, trans_b, kExact);
        CHECK(largest_difference(plain, exact) < 1e-5);
        for (const Case& c : kCases) {
          INFO(P, " products, ", c.bits, " bits, transposed ", trans_a, trans_b);
          const WithPrecision scope(c.precision);
          const Tensor found = product(a, b, trans_a, trans_b, kOn);
          // Each factor is off by at most 2^-bits of itself (half that when rounded to nearest), K products of size ~1.
          const double unit = std::ldexp(1.0, -c.bits);
          CHECK(largest_difference(found, exact) > unit / 8);
          CHECK(largest_difference(found, exact) < 2 * unit * 33);
#ifdef ADDP_CUDA_EMULATOR
          const Tensor expected =
              product(rounded(a, c.bits, c.ties_to_even), rounded(b, c.bits, c.ties_to_even), trans_a, trans_b, kExact);
          CHECK(largest_difference(found, expected) < 1e-5);
#endif
        }
      }
    }
  }
}

TEST_CASE("cuda: rounding keeps what can be kept, and NaN") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> kept = {0, 1, -1.5f, 0.0078125f, 3.0e38f, -inf, 1e-30f, nan};
  for (const Case& c : kCases) {
    const WithPrecision scope(c.precision);
    for (float x : kept) {
      INFO(c.bits, " bits, ", x);
      const float y =
          to_vector<float>(to(matmul(Var(full({1, 1}, x, kOn)), Var(full({1, 1}, 1, kOn))).value(), Options()))[0];
      if (x != x) CHECK(y != y);
      else if (std::abs(x) == inf) CHECK(y == x);
      else CHECK(y == rounded(x, c.bits, c.ties_to_even));
    }
  }
}

TEST_CASE("cuda: float64 products, and all else, are the same with any precision of products") {
  Rng rng(6);
  const Tensor x = rng.normal({4, 9}), w = rng.normal({5, 9}), b = rng.normal({5}), image = rng.normal({1, 3, 8, 8});
  const Tensor kernel = rng.normal({4, 3, 3, 3});
  const auto all = [&](Options on) {
    const Var bias(to(b, on));
    return std::vector<Tensor>{linear(Var(to(x, on)), Var(to(w, on)), bias).value(),
                               conv2d(Var(to(image, on)), Var(to(kernel, on)), Var(), 1, {1, 1, 1, 1}).value(),
                               softmax(Var(to(x, on))).value()};
  };
  const Options doubles{DType::f64, Device::cuda};
  const std::vector<Tensor> plain = all(kOn), plain_doubles = all(doubles);
  for (const Case& c : kCases) {
    const WithPrecision scope(c.precision);
    const std::vector<Tensor> now = all(kOn), now_doubles = all(doubles);
    for (size_t i = 0; i < plain.size(); ++i) CHECK(same_bits(now_doubles[i], plain_doubles[i]));
    CHECK_FALSE(same_bits(now[0], plain[0]));  // linear
    for (size_t i = 1; i < plain.size(); ++i) CHECK(same_bits(now[i], plain[i]));
  }
}

TEST_CASE("cuda: --matmul is refused where it cannot be, and sets the precision where it can") {
  CHECK(matmul_precision() == MatmulPrecision::f32);
  CHECK_THROWS_AS(matmul_precision_of("fp8"), Error);
  CommonOptions options;
  options.matmul = "tf32";
  CHECK(contains(message_of(ErrorKind::usage, [&] { apply(options); }), "CPU"));
  CHECK(matmul_precision() == MatmulPrecision::f32);
  options.device = cuda_backend_name();
  apply(options);
  CHECK(matmul_precision() == MatmulPrecision::tf32);
  apply(CommonOptions());
  CHECK(matmul_precision() == MatmulPrecision::f32);
}
