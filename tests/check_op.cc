// The harness behind check_op.h.
#include "tests/check_op.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tensor/parallel.h"
#include "tensor/random.h"

namespace addp {
namespace {

// Leaves with the same values in either dtype, on either device.
std::vector<Var> random_leaves(const std::vector<Shape>& shapes, const CheckOpOptions& options, Options on) {
  Rng rng(20240517);
  std::vector<Var> leaves;
  for (const Shape& shape : shapes) {
    std::vector<double> values(shape.numel());
    // float32 values, so that both runs start from the same numbers
    for (double& v : values) v = static_cast<float>(options.low + (options.high - options.low) * rng.uniform());
    leaves.emplace_back(to(from_vector(values, shape), on), true);
  }
  return leaves;
}

// A scalar that depends on every element of y with its own weight.
Var projection(const Var& y) {
  Rng rng(7);
  std::vector<double> weights(y.numel());
  for (double& w : weights) w = static_cast<float>(0.5 + rng.uniform());
  return sum(mul(y, Var(to(from_vector(weights, y.shape()), y.options()))));
}

// Output and gradients of f.
std::vector<Tensor> run(const std::vector<Shape>& shapes, const OpUnderTest& f, const CheckOpOptions& options,
                        Options on) {
  std::vector<Var> leaves = random_leaves(shapes, options, on);
  const Var y = f(leaves);
  std::vector<Tensor> results{y.value()};
  backward(projection(y));
  for (const Var& leaf : leaves) results.push_back(leaf.grad().defined() ? leaf.grad() : zeros_like(leaf.value()));
  return results;
}

double relative_error(const Tensor& found, const Tensor& expected) {
  const std::vector<double> a = to_vector<double>(found), b = to_vector<double>(expected);
  double scale = 1e-3, error = 0;
  for (double x : b) scale = std::max(scale, std::abs(x));
  for (size_t i = 0; i < a.size(); ++i) error = std::max(error, std::isfinite(a[i]) ? std::abs(a[i] - b[i]) : INFINITY);
  return error / scale;
}

void check_gradients(const std::vector<Shape>& shapes, const OpUnderTest& f, const CheckOpOptions& options,
                     Device device, int64_t samples) {
  std::vector<Var> leaves = random_leaves(shapes, options, {DType::f64, device});
  std::vector<NamedVar> named;
  for (size_t i = 0; i < leaves.size(); ++i) named.push_back({concat_text("input ", i), leaves[i]});
  const GradcheckResult result = gradcheck([&] { return projection(f(leaves)); }, named, samples);
  INFO("gradient of ", result.name, " at ", result.index, ": analytic ", result.analytic, ", numeric ", result.numeric);
  CHECK(result.worst_error < 1e-6);
}

std::string result_name(size_t i) { return i == 0 ? "output" : concat_text("gradient of input ", i - 1); }

// The device against the CPU in both precisions, and the same bits each time. Every element is compared in float64,
// where the CPU's gradients are checked in full, so that a few difference quotients suffice here.
void check_on_device(const std::vector<Shape>& shapes, const OpUnderTest& f, const CheckOpOptions& options,
                     const std::vector<Tensor>& expected) {
  check_gradients(shapes, f, options, Device::cuda, 1);
  for (const DType dtype : {DType::f64, DType::f32}) {
    const std::vector<Tensor> found = run(shapes, f, options, {dtype, Device::cuda});
    const std::vector<Tensor> again = run(shapes, f, options, {dtype, Device::cuda});
    for (size_t i = 0; i < found.size(); ++i) {
      INFO(result_name(i), " on the device in ", dtype_name(dtype));
      REQUIRE(found[i].device() == Device::cuda);
      CHECK(relative_error(found[i], expected[i]) < (dtype == DType::f64 ? 1e-10 : options.f32_tolerance));
      CHECK(same_bits(again[i], found[i]));
    }
  }
}

}  // namespace

void check_op(const std::vector<Shape>& shapes, const OpUnderTest& f, CheckOpOptions options) {
  check_gradients(shapes, f, options, Device::cpu, 0);
  const std::vector<Tensor> expected = run(shapes, f, options, {DType::f64, Device::cpu});
  const std::vector<Tensor> found = run(shapes, f, options, {DType::f32, Device::cpu});
  for (size_t i = 0; i < found.size(); ++i) {
    INFO(result_name(i), " in float32");
    CHECK(relative_error(found[i], expected[i]) < options.f32_tolerance);
  }

  const int before = num_threads();
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    const std::vector<Tensor> again = run(shapes, f, options, {DType::f32, Device::cpu});
    for (size_t i = 0; i < found.size(); ++i) {
      INFO(threads, " threads, result ", i);
      CHECK(same_bits(again[i], found[i]));
    }
  }
  set_num_threads(before);
  check_on_device(shapes, f, options, expected);
}

}  // namespace addp
