// Normalisation, softmax and cross entropy: check_op, and each fused op against a composition of simple ones.
#include <doctest/doctest.h>

#include <functional>

#include <cmath>

#include "autograd/ops.h"
#include "tensor/parallel.h"
#include "tests/check_op.h"
#include "tests/compare.h"

using namespace addp;

namespace {

// x normalised over one axis by simple ops.
Var normalised(const Var& x, int64_t axis, double eps) {
  const int64_t n = x.dim(axis);
  Shape kept = x.shape();
  kept[axis < 0 ? axis + x.rank() : axis] = 1;
  const auto over = [&](const Var& v) { return expand(reshape(v, kept), axis, n); };
  const Var centered = x - over(mean_axis(x, axis));
  return centered / over(sqrt(mean_axis(square(centered), axis) + eps));
}

// [C] as [B, C, S]
Var per_channel(const Var& v, int64_t B, int64_t S) {
  return expand(expand(reshape(v, {1, v.numel(), 1}), 0, B), 2, S);
}

Var plain_group_norm(const Var& x, const Var& weight, const Var& bias, int64_t G, double eps) {
  const int64_t B = x.dim(0), S = x.numel() / (B * x.dim(1));
  const Var y = reshape(normalised(reshape(x, {B * G, -1}), -1, eps), {B, x.dim(1), S});
  return reshape(y * per_channel(weight, B, S) + per_channel(bias, B, S), x.shape());
}

}  // namespace

// ---- Normalisation

TEST_CASE("ops: layer_norm") {
  check_op({{2, 3, 8}, {8}, {8}}, [](auto& v) { return layer_norm(v[0], v[1], v[2], 1e-6); });
  check_op({{5, 37}, {37}, {37}}, [](auto& v) { return layer_norm(v[0], v[1], v[2], 1e-5); });
  check_same(
      {{2, 3, 35}, {35}, {35}}, [](auto& v) { return layer_norm(v[0], v[1], v[2], 1e-3); },
      [](auto& v) { return normalised(v[0], -1, 1e-3) * v[1] + v[2]; });
}

TEST_CASE("ops: layer_norm of long rows, whose gradients of weights are summed by several tasks") {
  const std::vector<Shape> shapes = {{41, 6007}, {6007}, {6007}};
  check_same(
      shapes, [](auto& v) { return layer_norm(v[0], v[1], v[2], 1e-3); },
      [](auto& v) { return normalised(v[0], -1, 1e-3) * v[1] + v[2]; });
  const int before = num_threads();
  std::vector<Tensor> first;
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    std::vector<Var> v;
    for (size_t i = 0; i < shapes.size(); ++i) v.emplace_back(random_tensor(shapes[i], i, {}), true);
    backward(layer_norm(v[0], v[1], v[2], 1e-5), random_tensor(shapes[0], 9, {}));
    if (first.empty()) first = {v[0].grad(), v[1].grad(), v[2].grad()};
    for (size_t i = 0; i < 3; ++i) CHECK(same_bits(first[i], v[i].grad()));
  }
  set_num_threads(before);
}

TEST_CASE("ops: group_norm, group_norm_silu") {
  for (int64_t groups : {1, 2, 6}) {
    CAPTURE(groups);
    check_op({{2, 6, 3, 3}, {6}, {6}}, [=](auto& v) { return group_norm(v[0], v[1], v[2], groups, 1e-6); });
    check_op({{2, 6, 3, 3}, {6}, {6}}, [=](auto& v) { return group_norm_silu(v[0], v[1], v[2], groups, 1e-6); });
    check_same(
        {{2, 6, 5, 7}, {6}, {6}}, [=](auto& v) { return group_norm_silu(v[0], v[1], v[2], groups, 1e-3); },
        [=](auto& v) { return silu(plain_group_norm(v[0], v[1], v[2], groups, 1e-3)); });
    check_same(
        {{2, 6, 5, 7}, {6}, {6}}, [=](auto& v) { return group_norm(v[0], v[1], v[2], groups, 1e-3); },
        [=](auto& v) { return plain_group_norm(v[0], v[1], v[2], groups, 1e-3); });
  }
}

TEST_CASE("ops: batch_norm") {
  const Tensor mean = from_vector<double>({0.1, -0.2, 0.3}, {3}), var = from_vector<double>({1.5, 0.5, 2}, {3});
  // Each call gets its own running moments, in the dtype of x.
  const auto fresh = [](const Tensor& moment, const Var& x) { return clone(to(moment, x.options())); };
  for (bool training : {false, true}) {
    check_op({{4, 3, 2, 3}, {3}, {3}}, [=](auto& v) {
      return batch_norm(v[0], v[1], v[2], fresh(mean, v[0]), fresh(var, v[0]), training, 0.1, 1e-5);
    });
    check_op({{5, 3}}, [=](auto& v) {
      return batch_norm(v[0], {}, {}, fresh(mean, v[0]), fresh(var, v[0]), training, 0.1, 1e-5);
    });
  }
  check_same(
      {{4, 3, 9}, {3}, {3}},
      [=](auto& v) { return batch_norm(v[0], v[1], v[2], fresh(mean, v[0]), fresh(var, v[0]), true, 0.1, 1e-5); },
      [](auto& v) {
        const Var rows = reshape(permute(v[0], {1, 0, 2}), {3, 36});
        const Var y = permute(reshape(normalised(rows, 1, 1e-5), {3, 4, 9}), {1, 0, 2});
        return y * per_channel(v[1], 4, 9) + per_channel(v[2], 4, 9);
      });
}

TEST_CASE("ops: batch_norm of rows, more than fit one task") {
  const std::vector<Shape> shapes = {{5, 131}, {131}, {131}};
  const auto op = [](auto& v) {
    return batch_norm(v[0], v[1], v[2], zeros({131}, v[0].options()), ones({131}, v[0].options()), true, 0.1, 1e-5);
  };
  check_op(shapes, op);
  check_same(shapes, op, [](auto& v) {
    const Var columns = permute(normalised(permute(v[0], {1, 0}), 1, 1e-5), {1, 0});
    return columns * v[1] + v[2];
  });
}

TEST_CASE("ops: norms of planes longer than a piece, far from zero") {
  const std::vector<Shape> shapes = {{2, 2, 4099}, {2}, {2}};
  // Deviations of 1 around 300, in pieces whose means differ by 4.
  const auto far = [](const Var& x) {
    std::vector<double> start(static_cast<size_t>(x.numel()));
    for (size_t i = 0; i < start.size(); ++i) start[i] = i % 4099 < 4096 ? 300 : 304;
    return x + Var(to(from_vector(start, x.shape()), x.options()));
  };
  const auto moments = [](auto& v) { return zeros({2}, v[0].options()); };
  const auto group = [=](auto& v) { return group_norm(far(v[0]), v[1], v[2], 2, 1e-5); };
  const auto batch = [=](auto& v) {
    return batch_norm(far(v[0]), v[1], v[2], moments(v), moments(v), true, 0.1, 1e-5);
  };
  check_same(
      shapes, [&](auto& v) { return group(v); },
      [&](auto& v) { return plain_group_norm(far(v[0]), v[1], v[2], 2, 1e-5); });
  check_same(
      shapes, [&](auto& v) { return batch(v); },
      [&](auto& v) {
        const Var rows = reshape(permute(far(v[0]), {1, 0, 2}), {2, 2 * 4099});
        const Var y = permute(reshape(normalised(rows, 1, 1e-5), {2, 2, 4099}), {1, 0, 2});
        return y * per_channel(v[1], 2, 4099) + per_channel(v[2], 2, 4099);
      });
  for (const OpUnderTest& f : {OpUnderTest(group), OpUnderTest(batch)}) {
    std::vector<Var> wide, narrow;
    for (size_t i = 0; i < shapes.size(); ++i) {
      wide.emplace_back(random_tensor(shapes[i], 10 + i));
      narrow.emplace_back(to(wide[i].value(), {DType::f32, Device::cpu}));
    }
    CHECK(largest_difference(f(wide).value(), f(narrow).value()) < 2e-4);
  }
}

TEST_CASE("ops: batch_norm moves the running moments as PyTorch does, in training only") {
  const Var x(from_vector<double>({1, 2, 3, 6}, {2, 1, 2}));
  const Tensor mean = full({1}, 1, kDouble), var = full({1}, 2, kDouble);
  batch_norm(x, {}, {}, mean, var, false, 0.1, 1e-5);
  CHECK(mean.item() == 1);
  batch_norm(x, {}, {}, mean, var, true, 0.1, 1e-5);
  CHECK(mean.item() == doctest::Approx(0.9 * 1 + 0.1 * 3));
  CHECK(var.item() == doctest::Approx(0.9 * 2 + 0.1 * 14.0 / 3));  // sum of squares 14 over n - 1
}

TEST_CASE("ops: unit_norm") {
  for (int64_t axis : {0, 1, -1}) check_op({{3, 4, 5}}, [=](auto& v) { return unit_norm(v[0], axis, 1e-3); });
  check_op({{2, 3, 70}}, [](auto& v) { return unit_norm(v[0], 1, 1e-10); });
  check_same(
      {{3, 4, 5}}, [](auto& v) { return unit_norm(v[0], 1, 0.1); },
      [](auto& v) {
        const Var norm = sqrt(sum_axis(square(v[0]), 1)) + 0.1;
        return v[0] / expand(reshape(norm, {3, 1, 5}), 1, 4);
      });
  Var zero(zeros({1, 2}, kDouble), true);
  backward(sum(unit_norm(zero, 1, 0.5)));
  CHECK(to_vector<double>(zero.grad()) == std::vector<double>{2, 2});
}

// ---- Softmax and losses

TEST_CASE("ops: softmax, log_softmax") {
  check_op({{2, 3, 21}}, [](auto& v) { return softmax(v[0]); }, {.low = -4, .high = 4});
  check_op({{2, 3, 21}}, [](auto& v) { return log_softmax(v[0]); }, {.low = -4, .high = 4});
  check_same(
      {{3, 21}}, [](auto& v) { return log_softmax(v[0]); }, [](auto& v) { return log(softmax(v[0])); });
  check_same(
      {{3, 21}}, [](auto& v) { return softmax(v[0]); },
      [](auto& v) {
        return exp(v[0]) / expand(reshape(sum_axis(exp(v[0]), 1), {3, 1}), 1, 21);
      });
  const Var large(from_vector<float>({1000, 999, -1000}, {3}));
  CHECK(all_finite(softmax(large).value()));
  CHECK(all_finite(log_softmax(large).value()));
}

TEST_CASE("ops: soft_cross_entropy") {
  const Tensor target = softmax(Var(random_tensor({2, 3, 11}, 8))).value();
  const Tensor weight = from_vector<float>({1, 0, 0.5, 1, 1, 0}, {2, 3});
  for (double smoothing : {0.0, 0.1}) {
    check_op({{2, 3, 19}}, [&](auto& v) { return soft_cross_entropy(v[0], target, weight, smoothing); });
    check_op({{2, 3, 11}}, [&](auto& v) { return soft_cross_entropy(v[0], target, {}, smoothing); });
    check_same(
        {{2, 3, 19}}, [&](auto& v) { return soft_cross_entropy(v[0], target, weight, smoothing); },
        [&](auto& v) {
          const Var padded = concat({Var(target), Var(zeros({2, 3, 8}, kDouble))}, 2);
          const Var q = affine(padded, 1 - smoothing, smoothing / 19);
          const Var row = -sum_axis(q * log_softmax(v[0]), 2);
          return (1 / 3.5) * sum(row * Var(to(weight, kDouble)));
        });
  }
  // Targets that do not sum to 1, and no weight at all.
  const Tensor odd = random_tensor({4, 5}, 9);
  check_op({{4, 7}}, [&](auto& v) { return soft_cross_entropy(v[0], odd, {}, 0.2); });
  Var x(random_tensor({4, 7}), true);
  const Var nothing = soft_cross_entropy(x, odd, zeros({4}), 0);
  CHECK(nothing.item() == 0);
  backward(nothing);
  CHECK(largest_difference(x.grad(), zeros({4, 7}, kDouble)) == 0);
}

TEST_CASE("ops: cross_entropy") {
  const Tensor labels = from_vector<int64_t>({0, 18, 5, 5, 7, 1}, {2, 3});
  const Tensor weight = from_vector<float>({1, 0, 2, 1, 1, 0}, {2, 3});
  std::vector<double> one_hot(6 * 19);
  for (int r = 0; r < 6; ++r) one_hot[r * 19 + to_vector<int64_t>(labels)[r]] = 1;
  const Tensor target = from_vector(one_hot, {2, 3, 19});
  for (double smoothing : {0.0, 0.1}) {
    check_op({{2, 3, 19}}, [&](auto& v) { return cross_entropy(v[0], labels, weight, smoothing); });
    check_same(
        {{2, 3, 19}}, [&](auto& v) { return cross_entropy(v[0], labels, {}, smoothing); },
        [&](auto& v) { return soft_cross_entropy(v[0], target, {}, smoothing); });
  }
  NoGrad no_grad;
  CHECK(std::isfinite(cross_entropy(Var(random_tensor({2, 3, 19})), labels, {}, 0).item()));
}

TEST_CASE("losses: a backward pass that begins at the loss gives the gradient of one that begins above it") {
  const Tensor labels = from_vector<int64_t>({2, 0, 1}, {3});
  const auto gradient_of = [&](const std::function<Var(const Var&)>& above) {
    const Var logits(random_tensor({3, 4}), true);
    backward(above(cross_entropy(logits, labels, {}, 0.1)));
    return logits.grad();
  };
  const Tensor at_loss = gradient_of([](const Var& loss) { return loss; });
  CHECK(same_bits(gradient_of([](const Var& loss) { return affine(loss, 1, 0); }), at_loss));
  CHECK(largest_difference(gradient_of([](const Var& loss) { return affine(loss, 2, 0); }), at_loss) > 0.01);
  // Two losses of one input: neither gradient is changed by adding the other.
  const Var logits(random_tensor({3, 4}), true);
  const Var loss = cross_entropy(logits, labels, {}, 0.1);
  const Tensor first = gradient(loss, logits);
  backward(loss);
  backward(cross_entropy(logits, labels, {}, 0.1));
  CHECK(same_bits(first, at_loss));
  CHECK(largest_difference(logits.grad(), at_loss) > 0.01);
}
