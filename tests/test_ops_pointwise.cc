// The ops of autograd/ops_{elementwise,shape,reduce,random,quantize}.cc: gradients, odd sizes, threads (check_op),
// plain loops and compositions, edges of their ranges.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "tensor/parallel.h"
#include "tensor/random.h"
#include "tests/check_op.h"
#include "tests/compare.h"

using namespace addp;

// ---- Elementwise

TEST_CASE("ops: two operands, the second repeats over leading axes") {
  for (const Shape& b : {Shape{2, 3, 5}, Shape{3, 5}, Shape{5}, Shape{1, 1, 5}, Shape{1}, Shape{}}) {
    CAPTURE(b);
    check_op({{2, 3, 5}, b}, [](auto& v) { return add(v[0], v[1]); });
    check_op({{2, 3, 5}, b}, [](auto& v) { return sub(v[0], v[1]); });
    check_op({{2, 3, 5}, b}, [](auto& v) { return mul(v[0], v[1]); });
    check_op({{2, 3, 5}, b}, [](auto& v) { return div(v[0], v[1]); }, {.low = 0.5, .high = 2});
  }
  check_op({{3, 7}}, [](auto& v) { return mul(v[0], v[0]); });
}

TEST_CASE("ops: one operand") {
  const std::vector<Shape> shapes{{3, 37}};
  check_op(shapes, [](auto& v) { return affine(v[0], -1.5, 0.25); });
  check_op(shapes, [](auto& v) { return exp(v[0]); }, {.low = -3, .high = 3});
  check_op(shapes, [](auto& v) { return log(v[0]); }, {.low = 0.2, .high = 2});
  check_op(shapes, [](auto& v) { return sqrt(v[0]); }, {.low = 0.2, .high = 2});
  check_op(shapes, [](auto& v) { return square(v[0]); });
  check_op(shapes, [](auto& v) { return silu(v[0]); }, {.low = -6, .high = 6});
  check_op(shapes, [](auto& v) { return gelu(v[0]); }, {.low = -5, .high = 5});
  check_op(shapes, [](auto& v) { return sigmoid(v[0]); }, {.low = -6, .high = 6});
  check_op(shapes, [](auto& v) { return tanh(v[0]); }, {.low = -3, .high = 3});
  // Those with kinks on either side of them.
  for (const CheckOpOptions& side : {CheckOpOptions{.low = 0.1, .high = 1}, CheckOpOptions{.low = -1, .high = -0.1}}) {
    check_op(
        shapes, [](auto& v) { return abs(v[0]); }, side);
    check_op(
        shapes, [](auto& v) { return relu(v[0]); }, side);
    check_op(
        shapes, [](auto& v) { return leaky_relu(v[0], 0.2); }, side);
    check_op(
        shapes, [](auto& v) { return clamp(v[0], -0.05, 2); }, side);
  }
}

TEST_CASE("softmax: what is far below the largest gets nothing at all") {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Var x(to(from_vector<double>({-1000, 0, -1e30, -1000}, {4}), {dtype, Device::cpu}));
    CHECK(to_vector<double>(to(softmax(x).value(), {DType::f64, Device::cpu})) == std::vector<double>{0, 1, 0, 0});
  }
}

TEST_CASE("ops: gradients on the kinks, NaN passes through") {
  const auto at = [](double x, const std::function<Var(const Var&)>& f) {
    Var v(from_vector<double>({x}, {1}), true);
    backward(sum(f(v)));
    return v.grad().item();
  };
  CHECK(at(0, [](const Var& v) { return abs(v); }) == 0);
  CHECK(at(0, [](const Var& v) { return relu(v); }) == 0);
  CHECK(at(1, [](const Var& v) { return clamp(v, -1, 1); }) == 1);
  CHECK(at(-1, [](const Var& v) { return clamp(v, -1, 1); }) == 1);
  CHECK(at(1.01, [](const Var& v) { return clamp(v, -1, 1); }) == 0);
  for (DType dtype : {DType::f32, DType::f64}) {
    const Var nan(full({3}, NAN, {dtype, Device::cpu}));
    for (const Var& y : {exp(nan), abs(nan), relu(nan), leaky_relu(nan, 0.1), silu(nan), gelu(nan), sigmoid(nan),
                         tanh(nan), clamp(nan, 0, 1), softmax(nan)}) {
      CHECK(std::isnan(sum(y).item()));
    }
  }
}

TEST_CASE("ops: float32 exp, sigmoid and gelu over their whole range") {
  std::vector<double> x;
  for (double v = -110; v <= 110; v += 0.037) x.push_back(static_cast<float>(v));
  const Shape shape{static_cast<int64_t>(x.size())};
  const Var exact(from_vector(x, shape)), single(to(exact.value(), {}));
  const std::vector<double> e64 = to_vector<double>(exp(exact).value()), e32 = to_vector<double>(exp(single).value());
  for (size_t i = 0; i < x.size(); ++i) {
    CAPTURE(x[i]);
    if (x[i] < -86.5) CHECK(e32[i] < 1e-37);
    else if (x[i] > 88.8) CHECK(std::isinf(e32[i]));
    else if (x[i] < 88.7) CHECK(std::abs(e32[i] / e64[i] - 1) < 2e-7);
  }
  CHECK(largest_difference(sigmoid(single).value(), sigmoid(exact).value()) < 2e-7);
  const Tensor near = to(affine(exact, 0.1, 0).value(), {});
  CHECK(largest_difference(gelu(Var(near)).value(), gelu(Var(to(near, kDouble))).value()) < 2e-6);
  CHECK(std::isinf(exp(Var(full({1}, INFINITY))).item()));
  CHECK(exp(Var(full({1}, -INFINITY))).item() == 0);
}

TEST_CASE("ops: bias_gelu") {
  check_op({{2, 3, 19}, {19}}, [](auto& v) { return bias_gelu(v[0], v[1]); }, {.low = -3, .high = 3});
  check_same(
      {{5, 33}, {33}}, [](auto& v) { return bias_gelu(v[0], v[1]); }, [](auto& v) { return gelu(v[0] + v[1]); });
}

TEST_CASE("ops: select_rows") {
  const Tensor mask = from_vector<float>({1, 0, 0, 1, 1, 0}, {2, 3});
  for (const Shape& b : {Shape{2, 3, 5}, Shape{5}}) {
    check_op({{2, 3, 5}, b}, [&](auto& v) { return select_rows(mask, v[0], v[1]); });
    check_op({b, {2, 3, 5}}, [&](auto& v) { return select_rows(mask, v[0], v[1]); });
  }
  const Var wide = expand(reshape(Var(to(mask, kDouble)), {2, 3, 1}), 2, 5);
  check_same(
      {{2, 3, 5}, {2, 3, 5}}, [&](auto& v) { return select_rows(mask, v[0], v[1]); },
      [&](auto& v) { return wide * v[0] + (-wide + 1) * v[1]; });
}

// ---- Shape

TEST_CASE("ops: reshape, permute, slice, concat, expand") {
  check_op({{2, 3, 4}}, [](auto& v) { return reshape(v[0], {4, -1}); });
  check_op({{2, 3, 4}}, [](auto& v) { return permute(v[0], {2, 0, 1}); });
  check_op({{2, 3, 4, 5}}, [](auto& v) { return permute(v[0], {0, 2, 1, 3}); });
  for (int64_t axis : {0, 1, -1}) {
    check_op({{3, 4, 5}}, [=](auto& v) { return slice(v[0], axis, 1, 3); });
    check_op({{3, 3, 3}, {3, 3, 3}}, [=](auto& v) { return concat({v[0], v[1], v[0]}, axis); });
  }
  check_op({{2, 1, 3}, {2, 4, 3}}, [](auto& v) { return concat({v[0], v[1]}, 1); });
  check_op({{2, 1, 3}}, [](auto& v) { return expand(v[0], 1, 5); });
  check_op({{3, 1}}, [](auto& v) { return expand(v[0], -1, 7); });
}

TEST_CASE("ops: permute moves every element where it belongs") {
  const Shape shape{3, 37, 2, 41};
  std::vector<int> order{0, 1, 2, 3};
  const Tensor x = random_tensor(shape, 3);
  const std::vector<double> from = to_vector<double>(x);
  do {
    const Tensor y = permute(Var(x), order).value();
    const std::vector<double> found = to_vector<double>(y);
    int64_t at = 0, wrong = 0, index[4];
    for (index[0] = 0; index[0] < y.dim(0); ++index[0]) {
      for (index[1] = 0; index[1] < y.dim(1); ++index[1]) {
        for (index[2] = 0; index[2] < y.dim(2); ++index[2]) {
          for (index[3] = 0; index[3] < y.dim(3); ++index[3]) {
            int64_t i[4];
            for (int a = 0; a < 4; ++a) i[order[a]] = index[a];
            wrong += found[at++] != from[((i[0] * 37 + i[1]) * 2 + i[2]) * 41 + i[3]];
          }
        }
      }
    }
    CHECK(wrong == 0);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("ops: gather_rows, gather_tokens") {
  const Tensor rows = from_vector<int64_t>({3, 0, 3, 1, 3, 3}, {2, 3});
  check_op({{4, 5}}, [&](auto& v) { return gather_rows(v[0], rows); });
  check_op({{2, 4, 5}}, [&](auto& v) { return gather_tokens(v[0], rows); });
  Rng rng(4);
  std::vector<int64_t> many(3000);
  for (int64_t& i : many) i = rng.below(50);
  const Tensor index = from_vector<int64_t>(many, {3000});
  Var table(random_tensor({50, 24}), true);
  const Tensor dy = random_tensor({3000, 24}, 2);
  backward(sum(mul(gather_rows(table, index), Var(dy))));
  std::vector<double> expected(50 * 24), terms = to_vector<double>(dy);
  for (int64_t r = 0; r < 3000; ++r) {
    for (int64_t d = 0; d < 24; ++d) expected[many[r] * 24 + d] += terms[r * 24 + d];
  }
  CHECK(to_vector<double>(table.grad()) == expected);
}

// ---- Reductions

TEST_CASE("ops: sum, mean, sum_axis, mean_axis") {
  check_op({{3, 5, 7}}, [](auto& v) { return sum(v[0]); });
  check_op({{3, 5, 7}}, [](auto& v) { return mean(v[0]); });
  for (int64_t axis : {0, 1, 2, -1, -3}) {
    check_op({{3, 5, 7}}, [=](auto& v) { return sum_axis(v[0], axis); });
    check_op({{3, 5, 7}}, [=](auto& v) { return mean_axis(v[0], axis); });
  }
}

TEST_CASE("ops: long sums are exact to float32's last digits, the same for any number of threads") {
  const Tensor x = affine(Var(random_tensor({3, 50022}, 6)), 1, 10).value();
  const Tensor single = to(x, {});
  const auto sums = [](const Tensor& t) {
    return std::vector<Tensor>{sum(Var(t)).value(),
                               sum_axis(Var(t), 0).value(),
                               sum_axis(Var(t), 1).value(),
                               sum_axis(reshape(Var(t), {50022, 3}), 0).value(),
                               sum_axis(reshape(Var(t), {7, -1, 3}), 1).value(),
                               sum_axis(reshape(Var(t), {378, 397}), 0).value(),
                               sum_axis(reshape(Var(t), {7, 21438}), 0).value()};
  };
  const std::vector<Tensor> exact = sums(to(single, kDouble)), found = sums(single);
  for (int64_t rows : {378, 7}) {  // columns as rows of the transposed
    const Var columns = permute(reshape(Var(to(single, kDouble)), {rows, -1}), {1, 0});
    CHECK(largest_difference(exact[rows == 378 ? 5 : 6], sum_axis(columns, 1).value()) < 1e-9);
  }
  for (size_t i = 0; i < exact.size(); ++i) {
    CAPTURE(i);
    CHECK(largest_difference(to(found[i], kDouble), exact[i]) < 2e-7 * sum(abs(Var(exact[i]))).item());
  }
  const int before = num_threads();
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    const std::vector<Tensor> again = sums(single);
    for (size_t i = 0; i < found.size(); ++i) CHECK(same_bits(again[i], found[i]));
  }
  set_num_threads(before);
}

// ---- Random and quantization

TEST_CASE("ops: dropout, drop_path") {
  check_op({{5, 31}}, [](auto& v) {
    Rng rng(3);
    return dropout(v[0], 0.3, rng);
  });
  check_op({{9, 4, 3}}, [](auto& v) {
    Rng rng(3);
    return drop_path(v[0], 0.3, rng);
  });
  Rng rng(11), same(11);
  const Var x(ones({100, 301}));
  const std::vector<float> y = to_vector<float>(dropout(x, 0.25, rng).value());
  int64_t kept = 0;
  for (float value : y) {
    const bool drop = same.uniform() < 0.25;
    CHECK(value == (drop ? 0.0f : 1 / 0.75f));
    kept += !drop;
  }
  CHECK(rng.position() == 30100);
  CHECK(kept / 30100.0 == doctest::Approx(0.75).epsilon(0.02));
  const std::vector<float> paths = to_vector<float>(drop_path(x, 0.5, rng).value());
  for (int64_t b = 0; b < 100; ++b) {
    const float expected = same.uniform() < 0.5 ? 0.0f : 2.0f;
    CHECK(std::all_of(paths.begin() + b * 301, paths.begin() + (b + 1) * 301, [=](float v) { return v == expected; }));
  }
  CHECK(rng.position() == 30200);
  CHECK(dropout(x, 0, rng).same_node(x));
  CHECK(rng.position() == 30200);
}

TEST_CASE("rng: float32 numbers stay below 1 and equal the scalar draws from any position") {
  Rng a(77, 5, 123456789), b = a;
  for (float u : to_vector<float>(a.uniform({5003}))) {
    CHECK(u == static_cast<float>(b.uniform()));
    CHECK(u < 1);
  }
  for (float n : to_vector<float>(a.normal({777}))) CHECK(n == static_cast<float>(b.normal()));
}

TEST_CASE("ops: straight_through passes the gradient and takes the value") {
  Var x(random_tensor({2, 3}), true);
  const Tensor q = random_tensor({2, 3}, 2);
  const Var y = straight_through(x, q);
  CHECK(same_bits(y.value(), q));
  backward(sum(y));
  CHECK(to_vector<double>(x.grad()) == std::vector<double>(6, 1.0));
  // Where the value is x itself the estimator is exact.
  check_op({{2, 3}}, [](auto& v) { return straight_through(v[0], v[0].value()); });
}
