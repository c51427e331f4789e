// check_op: everything a differentiable op must hold, in one line.
//   check_op({{2, 3, 8}, {8}, {8}}, [](auto& v) { return layer_norm(v[0], v[1], v[2], 1e-6); });
// runs f on random leaves of those shapes and checks
//   - float64: gradients of a random projection of f's output against central differences, relative error below 1e-6;
//   - float32: value and gradients against the float64 run;
//   - the same bits for 1, 2 and 5 threads;
//   - on the device (a GPU, or its emulator): value and gradients against the CPU's in both precisions, a difference
//     quotient per input, the same bits twice.
// Constants of f may live on the CPU where the op says so (indices, masks, labels); otherwise f makes them like v[0].
// Call it with odd sizes too. How to add an op: README.md.
#pragma once
#include <functional>
#include <vector>

#include "autograd/gradcheck.h"
#include "autograd/ops.h"

namespace addp {

using OpUnderTest = std::function<Var(std::vector<Var>& v)>;

struct CheckOpOptions {
  double low = -1, high = 1;    // range of the random inputs; e.g. {0.2, 2} for log
  double f32_tolerance = 2e-5;  // relative to the largest entry of each tensor
};

void check_op(const std::vector<Shape>& shapes, const OpUnderTest& f, CheckOpOptions options = {});

}  // namespace addp
