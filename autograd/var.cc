// The graph: recording, the backward pass, and gradients of chosen nodes.
#include "autograd/var.h"

#include <algorithm>
#include <atomic>
#include <queue>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "autograd/cost.h"
#include "autograd/seed.h"
#include "tensor/dispatch.h"

namespace addp {
namespace {

thread_local bool recording = true;
thread_local const void* seed = nullptr;  // where the present backward pass has its 1
// What the present backward pass computed again. It is held until the pass comes to the node itself, for then all that
// read it have been visited.
thread_local std::unordered_map<const Node*, Tensor>* recalled = nullptr;
std::atomic<uint64_t> next_sequence{1};

// Sets a variable until the end of the scope.
template <class T>
class Scoped {
 public:
  Scoped(T& variable, T value) : variable_(variable), outer_(std::exchange(variable, value)) {}
  ~Scoped() { variable_ = outer_; }
  Scoped(const Scoped&) = delete;
  Scoped& operator=(const Scoped&) = delete;

 private:
  T& variable_;
  T outer_;
};

// Gradients that meet at one node. The first is kept as it is, for it may be shared with other inputs; the second makes
// a fresh sum, into which further ones are added.
void accumulate(Tensor& total, const Tensor& part) {
  if (!total.defined()) {
    total = part;
    return;
  }
  check(total.shape() == part.shape(), "backward: gradients of shapes ", total.shape(), " and ", part.shape(), " meet");
  Tensor sum = total.unique() ? total : empty_like(total);
  dispatch(sum, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::binary<T>(dev, kernel::Binary::add, sum.ptr<T>(), total.ptr<T>(), part.ptr<T>(), sum.numel(), sum.numel());
  });
  claim_kernels(Phase::backward, "sums of gradients", [&] { return Cost{0, 3.0 * static_cast<double>(sum.bytes())}; });
  total = sum;
}

// A node whose gradient is being collected, kept alive until it is visited.
struct Pending {
  Var var;
  Tensor dy;
};

struct Earlier {
  bool operator()(const Node* a, const Node* b) const { return a->sequence < b->sequence; }
};

// Visits the nodes below `y`, latest first, each with its total gradient, going only into nodes that are `wanted`.
// visit(node, dy) returns the gradients of the node's inputs, or nothing to stop there; release(node) follows.
template <class Wanted, class Visit, class Release>
void walk(const Var& y, const Tensor& dy, const Wanted& wanted, const Visit& visit, const Release& release) {
  std::unordered_map<const Node*, Tensor> values;
  const Scoped scope(recalled, &values);
  std::priority_queue<Node*, std::vector<Node*>, Earlier> queue;
  std::unordered_map<Node*, Pending> pending;
  pending[&y.node()] = {y, dy};
  queue.push(&y.node());
  while (!queue.empty()) {
    Node& node = *queue.top();
    queue.pop();
    values.erase(&node);
    Pending current = std::move(pending.extract(&node).mapped());
    Gradients parts = visit(node, std::move(current.dy));
    check(parts.empty() || parts.size() == node.inputs.size(), "backward: op '", node.op, "' returned ", parts.size(),
          " gradients for ", node.inputs.size(), " inputs");
    for (size_t i = 0; i < parts.size(); ++i) {
      const Var& input = node.inputs[i];
      if (!input.needs_grad() || !parts[i].defined() || !wanted(input.node())) continue;
      check(parts[i].shape() == input.shape(), "backward: op '", node.op, "' gave input ", i, " of shape ",
            input.shape(), " a gradient of shape ", parts[i].shape());
      auto [place, is_new] = pending.try_emplace(&input.node(), Pending{input, Tensor()});
      accumulate(place->second.dy, std::exchange(parts[i], Tensor()));
      if (is_new) queue.push(&input.node());
    }
    release(node);
  }
}

// Where a backward pass from a loss begins: d(loss)/d(loss).
Tensor one_like_loss(const Var& loss) {
  check(loss.numel() == 1, "backward: the loss must be a scalar, its shape is ", loss.shape());
  return full(loss.shape(), 1, loss.options());
}

// Runs a node's closure.
Gradients propagate(Node& node, const Tensor& dy) {
  check(!node.spent, "backward: the graph of op '", node.op, "' was already used by a backward pass");
  Gradients gradients = node.backward(dy);
  claim_kernels(Phase::backward, node.op, [&] { return backward_cost(node); });
  return gradients;
}

}  // namespace

Node::~Node() {
  // Chains are as long as a network is deep; freed one by one they would recurse. Take apart what only we hold.
  std::vector<Var> doomed = std::move(inputs);
  backward = nullptr;
  recompute = nullptr;
  while (!doomed.empty()) {
    Var var = std::move(doomed.back());
    doomed.pop_back();
    if (!var.sole_owner()) continue;
    Node& node = var.node();
    node.backward = nullptr;
    node.recompute = nullptr;
    for (Var& input : node.inputs) doomed.push_back(std::move(input));
    node.inputs.clear();
  }
}

Var::Var(Tensor value, bool needs_grad) : node_(std::make_shared<Node>()) {
  check(value.defined(), "Var: undefined tensor");
  node_->value = std::move(value);
  node_->address = node_->value.raw();
  node_->needs_grad = needs_grad;
  node_->sequence = next_sequence++;
}

Node& Var::node() const {
  check(node_ != nullptr, "Var: undefined variable used");
  return *node_;
}

const Tensor& Var::value() const {
  if (node().is_leaf) return node().value;
  check(value_.defined(), "Var: the value of op '", node().op, "' was not kept");
  return value_;
}

const Tensor& Var::outline() const { return node().value; }

Var Var::edge() const {
  Var y;
  y.node_ = node_;
  return y;
}

Var Var::saved() const { return node().recompute ? edge() : *this; }

Tensor Var::recall() const {
  if (node().is_leaf || value_.defined()) return value();
  if (recalled && recalled->count(node_.get())) return recalled->at(node_.get());
  check(node().recompute != nullptr, "Var: the value of op '", node().op,
        "' was not kept and cannot be computed again");
  Tensor y = node().recompute();
  claim_kernels(Phase::backward, node().op, [&] { return forward_cost(node().op, node().inputs, y); });
  if (recalled) recalled->emplace(node_.get(), y);
  return y;
}

const Tensor& Var::grad() const { return node().grad; }
bool Var::needs_grad() const { return node_ && node_->needs_grad; }
void Var::set_grad(Tensor grad) { node().grad = std::move(grad); }

void Var::set_needs_grad(bool needs_grad) {
  check(node().is_leaf, "set_needs_grad: '", node().op, "' is the result of an op");
  node().needs_grad = needs_grad;
}

void Var::set_value(Tensor value) {
  check(node().is_leaf, "set_value: '", node().op, "' is the result of an op");
  check(value.shape() == shape(), "set_value: variable is ", shape(), ", new value is ", value.shape());
  node().value = std::move(value);
  node().address = node().value.raw();
}

Var detach(const Var& x) { return Var(x.value()); }

Var record(const char* op, Tensor value, std::vector<Var> inputs, BackwardFunction backward,
           RecomputeFunction recompute) {
  Var y(std::move(value));
  Node& node = y.node();
  node.op = op;
  bool needed = false;
  for (const Var& input : inputs) {
    needed = needed || input.needs_grad();
    check(!input.defined() || input.value().device() == node.value.device(), op,
          ": its inputs are on different devices");
  }
  const bool recorded = recording && needed;
  claim_kernels(recorded ? Phase::forward : Phase::frozen, op, [&] { return forward_cost(op, inputs, node.value); });
  if (!recorded) return y;
  node.is_leaf = false;
  node.needs_grad = true;
  y.value_ = std::exchange(node.value, node.value.outline());
  for (const Var& input : inputs) node.inputs.push_back(input.edge());
  node.backward = std::move(backward);
  node.recompute = std::move(recompute);
  return y;
}

bool is_seed(const Tensor& dy) { return seed != nullptr && dy.raw() == seed; }

void backward(const Var& loss) {
  const Tensor one = one_like_loss(loss);
  const Scoped<const void*> scope(seed, one.raw());
  backward(loss, one);
}

void backward(const Var& y, const Tensor& dy) {
  check(y.needs_grad(), "backward: the loss depends on no variable that needs a gradient");
  check(dy.shape() == y.shape(), "backward: dy must have y's shape ", y.shape(), ", found ", dy.shape());
  NoGrad no_grad;
  if (current_profile) current_profile->graph(activations_needed(y));
  walk(
      y, dy, [](const Node&) { return true; },
      [](Node& node, Tensor dy) {
        if (!node.is_leaf) return propagate(node, dy);
        accumulate(node.grad, dy);
        return Gradients();
      },
      [](Node& node) {
        if (node.is_leaf) return;
        node.spent = true;
        node.backward = nullptr;
        node.recompute = nullptr;
        node.inputs.clear();
      });
}

Tensor gradient(const Var& loss, const Var& wrt) {
  NoGrad no_grad;
  // Which nodes lie on a path to wrt: visited in order of creation, inputs before outputs.
  std::vector<const Node*> below, stack{&loss.node()};
  std::unordered_set<const Node*> seen{&loss.node()};
  while (!stack.empty()) {
    const Node* node = stack.back();
    stack.pop_back();
    below.push_back(node);
    for (const Var& input : node->inputs) {
      if (input.needs_grad() && input.node().sequence >= wrt.node().sequence && seen.insert(&input.node()).second) {
        stack.push_back(&input.node());
      }
    }
  }
  std::sort(below.begin(), below.end(), [](const Node* a, const Node* b) { return a->sequence < b->sequence; });
  std::unordered_set<const Node*> on_path{&wrt.node()};
  for (const Node* node : below) {
    for (const Var& input : node->inputs) {
      if (on_path.count(&input.node())) on_path.insert(node);
    }
  }
  if (!on_path.count(&loss.node())) return zeros_like(wrt.value());

  Tensor result;
  walk(
      loss, one_like_loss(loss), [&](const Node& node) { return on_path.count(&node) > 0; },
      [&](Node& node, Tensor dy) {
        if (&node != &wrt.node()) return node.is_leaf ? Gradients() : propagate(node, dy);
        result = dy;
        return Gradients();
      },
      [](Node&) {});
  return result.defined() ? result : zeros_like(wrt.value());
}

NoGrad::NoGrad() : previous_(std::exchange(recording, false)) {}
NoGrad::~NoGrad() { recording = previous_; }
bool grad_enabled() { return recording; }

}  // namespace addp
