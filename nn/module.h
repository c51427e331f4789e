// What a module is here: a plain struct with named members, constructed with its sizes and Options, and one function
//
//   template <class F> void visit(const std::string& prefix, F&& f)
//
// that calls f(prefix + name, Var&, Role) for each of its tensors and hands the call on to its sub-modules with a
// longer prefix ("blocks.0.attn."). Counting, initialising, loading, saving, optimizing and freezing all go through it.
// Names equal those of the official checkpoints.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "autograd/gradcheck.h"
#include "autograd/var.h"
#include "tensor/random.h"

namespace addp {

enum class Role {
  parameter,  // trained
  buffer      // saved with the weights, not trained: running statistics, codebook averages
};

// What a forward pass does besides computing: dropout, drop path and batch statistics are active when `train`.
struct Mode {
  bool train = false;
  Rng* rng = nullptr;  // needed when train and a dropout rate is positive
};

// Leaf tensors for constructors. Parameters start at `value`; initialisation (nn/init.h) gives them random values.
inline Var parameter(Shape shape, Options options, double value = 0) {
  return Var(full(std::move(shape), value, options), true);
}
inline Var buffer(Shape shape, Options options, double value = 0) {
  return Var(full(std::move(shape), value, options), false);
}

// All trained tensors with their names, in visiting order.
template <class Module>
std::vector<NamedVar> parameters(Module& module, const std::string& prefix = "") {
  std::vector<NamedVar> list;
  module.visit(prefix, [&](const std::string& name, Var& var, Role role) {
    if (role == Role::parameter) list.push_back({name, var});
  });
  return list;
}

template <class Module>
int64_t count_parameters(Module& module) {
  int64_t count = 0;
  for (const NamedVar& p : parameters(module)) count += p.var.numel();
  return count;
}

// Frozen parameters get no gradient and no update.
template <class Module>
void set_trainable(Module& module, bool trainable) {
  for (NamedVar& p : parameters(module)) p.var.set_needs_grad(trainable);
}

}  // namespace addp
