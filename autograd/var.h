// Reverse-mode automatic differentiation: Var, a shared handle to a Node of the graph that the forward pass records.
// Creation order is topological, so backward visits nodes by descending sequence number, without recursion.
// A backward closure captures its inputs and saved tensors, never its own output. The graph itself holds no values:
// that of an op's result lives as long as a Var that somebody uses, or a closure that reads it. Ops whose results are
// large and cheap (layer_norm, bias_gelu; linear, where it is asked to) say how to compute them again, so that no
// closure needs to hold them.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace addp {

using Gradients = std::vector<Tensor>;  // one per input; an undefined Tensor where none is needed
using BackwardFunction = std::function<Gradients(const Tensor& dy)>;
using RecomputeFunction = std::function<Tensor()>;  // an op's value once more, the same bits

struct Node;

class Var {
 public:
  Var() = default;  // undefined, e.g. the bias of a layer that has none
  // A leaf. needs_grad marks a parameter.
  explicit Var(Tensor value, bool needs_grad = false);

  bool defined() const { return node_ != nullptr; }
  const Tensor& value() const;
  const Shape& shape() const { return outline().shape(); }
  int64_t dim(int64_t axis) const { return outline().dim(axis); }
  int64_t rank() const { return outline().rank(); }
  int64_t numel() const { return outline().numel(); }
  Options options() const { return outline().options(); }
  double item() const { return value().item(); }

  // The same node without the value of an op's result, whose value() throws: what a closure captures that asks for
  // shapes, options and needs_grad only.
  Var edge() const;
  const Tensor& outline() const;  // shape and options; not necessarily defined
  // What a closure captures that reads the value, once, through recall(): an edge where the op computes it again, else
  // the Var as it is.
  Var saved() const;
  // Backward pass only: the value, computed again where it was not kept, once a pass.
  Tensor recall() const;

  bool needs_grad() const;               // false when undefined
  void set_needs_grad(bool needs_grad);  // leaves only
  const Tensor& grad() const;            // undefined when no gradient arrived
  void set_grad(Tensor grad);
  void clear_grad() { set_grad(Tensor()); }
  // Replaces a leaf's tensor (same shape), e.g. by a view into a parameter arena.
  void set_value(Tensor value);

  Node& node() const;  // throws when undefined
  bool same_node(const Var& other) const { return node_ == other.node_; }
  bool sole_owner() const { return node_.use_count() == 1; }

 private:
  friend Var record(const char*, Tensor, std::vector<Var>, BackwardFunction, RecomputeFunction);
  std::shared_ptr<Node> node_;
  Tensor value_;  // of an op's result
};

struct Node {
  ~Node();                        // frees long chains without recursion
  Tensor value;                   // of leaves; else its outline
  const void* address = nullptr;  // where the value lay
  Tensor grad;                    // of leaves, after backward()
  bool needs_grad = false;        // a gradient flows to this node
  bool is_leaf = true;            // made by the user, not by an op
  bool spent = false;             // backward() went through here and dropped the closure
  uint64_t sequence = 0;
  const char* op = "leaf";
  std::vector<Var> inputs;  // edges
  BackwardFunction backward;
  RecomputeFunction recompute;  // empty: the op's value must be kept
};

// A value without history.
Var detach(const Var& x);

// What every op ends with: the output Var, linked to its inputs when recording is on and an input needs a gradient.
// backward(dy) returns a gradient per input, in order; it may return an undefined Tensor where !input.needs_grad().
// recompute, if any, may use what backward keeps anyway.
Var record(const char* op, Tensor value, std::vector<Var> inputs, BackwardFunction backward,
           RecomputeFunction recompute = nullptr);

// Adds the gradients of a scalar to the grad of every leaf below it that needs one. Closures and saved tensors are
// dropped as they are used, so memory falls during the pass, and a second call on the same graph throws.
void backward(const Var& loss);
// The same from any Var: dy is the gradient of what is minimised with respect to y, of y's shape.
void backward(const Var& y, const Tensor& dy);

// d(loss)/d(wrt) for any node `wrt` below a scalar `loss` (zeros when the loss does not depend on it). Touches no grad
// and keeps the graph for a later backward(). Only the paths from loss to wrt are visited.
Tensor gradient(const Var& loss, const Var& wrt);

// While one lives, ops record nothing on this thread.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};
bool grad_enabled();

}  // namespace addp
