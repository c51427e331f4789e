// Comparisons that the tests of ops share: random tensors, largest differences, a fused op against a plain composition.
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "autograd/ops.h"
#include "tensor/random.h"
#include "tests/check_op.h"

namespace addp {

inline constexpr Options kDouble{DType::f64, Device::cpu};

inline Tensor random_tensor(Shape shape, uint64_t seed = 1, Options options = kDouble) {
  Rng rng(seed);
  return rng.normal(std::move(shape), options);
}

inline double largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const std::vector<double> x = to_vector<double>(a), y = to_vector<double>(b);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(x[i] - y[i]));
  return worst;
}

// Value and gradients of two formulas agree on the same random leaves.
inline void check_same(const std::vector<Shape>& shapes, const OpUnderTest& fused, const OpUnderTest& plain) {
  std::vector<std::vector<Tensor>> results;
  for (const OpUnderTest* f : {&fused, &plain}) {
    std::vector<Var> leaves;
    for (size_t i = 0; i < shapes.size(); ++i) leaves.emplace_back(random_tensor(shapes[i], 10 + i), true);
    const Var y = (*f)(leaves);
    backward(sum(mul(y, Var(random_tensor(y.shape(), 5)))));
    results.push_back({y.value()});
    for (const Var& leaf : leaves) results.back().push_back(leaf.grad());
  }
  for (size_t i = 0; i < results[0].size(); ++i) {
    INFO((i == 0 ? "value" : "gradient "), i);
    CHECK(largest_difference(results[0][i], results[1][i]) < 1e-10);
  }
}

}  // namespace addp
