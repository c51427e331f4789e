// Counting of floating point operations and bytes.
#include "autograd/cost.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace addp {
namespace {

using Names = std::set<std::string_view>;

// Views: no data moves.
const Names kViews = {"reshape", "straight_through"};
// They touch as much of their input as the output holds.
const Names kSelections = {"slice", "gather_rows", "gather_tokens"};
// Backward needs nothing but dy.
const Names kLinearOps = {"add",      "sub",       "affine",      "reshape",       "permute",
                          "slice",    "concat",    "expand",      "sum",           "mean",
                          "sum_axis", "mean_axis", "gather_rows", "gather_tokens", "upsample",
                          "avg_pool", "drop_path", "select_rows", "dropout",       "straight_through"};
// Backward reads what forward put out, or as much as that.
const Names kReadsOutput = {"softmax", "log_softmax", "max_pool", "attention", "div"};
const Names kReadsNoInput = {"softmax", "log_softmax", "max_pool"};
// Closures that capture their input by Var::saved().
const Names kRecalls = {"linear", "bias_gelu"};

// Forward writes the gradient of the logits, too; backward scales it.
const Names kGradientInForward = {"soft_cross_entropy", "cross_entropy"};

double bytes_of(const Tensor& x) { return static_cast<double>(x.bytes()); }

double bytes_of(const std::vector<Var>& inputs) {
  double sum = 0;
  for (const Var& input : inputs) {
    if (input.defined()) sum += bytes_of(input.outline());
  }
  return sum;
}

double product_flops(std::string_view op, const std::vector<Var>& inputs, const Tensor& y) {
  const auto size = static_cast<double>(y.numel());
  if (op == "linear") return 2 * size * static_cast<double>(inputs[1].dim(1));
  if (op == "conv2d") return 2 * size * static_cast<double>(inputs[1].numel() / inputs[1].dim(0));
  if (op == "attention") return 4 * size * static_cast<double>(y.dim(1));  // q k^T and p v: 2 B L L D each
  if (op != "matmul") return 0;
  // [P, M, K] x [P, K, N], either may be transposed: K^2 = |a| |b| / (|y| P).
  const auto a = static_cast<double>(inputs[0].numel()), b = static_cast<double>(inputs[1].numel());
  const double P = y.rank() == 3 ? static_cast<double>(y.dim(0)) : 1;
  return size > 0 ? 2 * size * std::round(std::sqrt(a * b / (size * P))) : 0;
}

}  // namespace

Cost forward_cost(const char* op, const std::vector<Var>& inputs, const Tensor& y) {
  if (kViews.count(op)) return {};
  if (kSelections.count(op)) return {0, 2 * bytes_of(y)};
  const double extra = kGradientInForward.count(op) ? bytes_of(inputs[0].value()) : 0;
  return {product_flops(op, inputs, y), bytes_of(inputs) + bytes_of(y) + extra};
}

Cost backward_cost(const Node& node) {
  const std::string_view op = node.op;
  if (kViews.count(op)) return {};
  // add and sub hand dy on where no sum over repeats is needed.
  const bool hands_on = op == "add" || op == "sub";
  Cost cost;
  int products = 0;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const Var& input = node.inputs[i];
    if (!input.needs_grad()) continue;
    if (!hands_on || input.numel() != node.value.numel()) cost.bytes += bytes_of(input.outline());
    products += i < 2;
  }
  if (hands_on && cost.bytes == 0) return cost;
  cost.bytes += bytes_of(node.value);  // dy
  if (!kLinearOps.count(op) && !kReadsNoInput.count(op)) cost.bytes += bytes_of(node.inputs);
  if (kReadsOutput.count(op)) cost.bytes += bytes_of(node.value);
  // Attention: the scores once more, then dv, dp, dq, dk: five products for the forward pass's two.
  cost.flops = product_flops(op, node.inputs, node.value) * (op == "attention" ? 2.5 : products);
  return cost;
}

int64_t activations_needed(const Var& y) {
  std::unordered_map<const void*, int64_t> kept;  // by address, for views share their storage
  std::unordered_set<const void*> parameters;     // whose views are read, too, and cost nothing
  std::unordered_set<const Node*> seen{&y.node()};
  std::vector<const Node*> stack{&y.node()};
  const auto keep = [&](const Node& x) {
    int64_t& bytes = kept[x.address];
    bytes = std::max(bytes, x.value.bytes());
  };
  while (!stack.empty()) {
    const Node& node = *stack.back();
    stack.pop_back();
    const bool reads_input = !node.is_leaf && !kLinearOps.count(node.op) && !kReadsNoInput.count(node.op);
    if (!node.is_leaf && kReadsOutput.count(node.op)) keep(node);
    for (const Var& input : node.inputs) {
      if (!input.defined()) continue;
      const bool is_parameter = input.node().is_leaf && input.needs_grad();
      const bool is_recalled = input.node().recompute && kRecalls.count(node.op);
      if (is_parameter) parameters.insert(input.node().address);
      else if (reads_input && !is_recalled) keep(input.node());
      if (seen.insert(&input.node()).second) stack.push_back(&input.node());
    }
  }
  int64_t sum = 0;
  for (const auto& [address, bytes] : kept) sum += parameters.count(address) ? 0 : bytes;
  return sum;
}

}  // namespace addp
