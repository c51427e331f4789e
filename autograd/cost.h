// What ops cost, from their names and shapes: for profiles. An op that is not named here counts as one that streams its
// inputs and output once.
#pragma once
#include "autograd/var.h"
#include "tensor/profile.h"

namespace addp {

// y = op(inputs). Causal attention counts as full.
Cost forward_cost(const char* op, const std::vector<Var>& inputs, const Tensor& y);
// The gradients of those inputs that need one.
Cost backward_cost(const Node& node);
// Bytes that the closures below y read, each tensor once: inputs or outputs of recorded ops; parameters not counted.
int64_t activations_needed(const Var& y);

}  // namespace addp
