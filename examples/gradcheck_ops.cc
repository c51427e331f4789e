// The list of every op of autograd/ops.h with inputs to check it on; tests/ fails when one is missing.
#include "autograd/ops.h"
#include "examples/cmd_gradcheck.h"

namespace addp {
namespace {

Tensor index(std::vector<int64_t> values, Shape shape) { return from_vector(values, std::move(shape)); }

Tensor constant(std::vector<double> values, Shape shape) { return from_vector(values, std::move(shape)); }

// Distributions over 5 codes for 4 rows.
Tensor distributions() {
  return constant({.1, .2, .3, .4, 0, .5, .5, 0, 0, 0, .2, .2, .2, .2, .2, 0, 0, 1, 0, 0}, {4, 5});
}

using Vars = std::vector<Var>;

std::vector<OpCase> elementwise_cases() {
  return {
      {"add", {{3, 5}, {5}}, [](Vars& v) { return add(v[0], v[1]); }},
      {"sub", {{3, 5}, {5}}, [](Vars& v) { return sub(v[0], v[1]); }},
      {"mul", {{2, 3, 5}, {3, 5}}, [](Vars& v) { return mul(v[0], v[1]); }},
      {"div", {{3, 5}, {5}}, [](Vars& v) { return div(v[0], v[1]); }, 0.5, 2},
      {"affine", {{3, 5}}, [](Vars& v) { return affine(v[0], 2.5, -1); }},
      {"exp", {{3, 5}}, [](Vars& v) { return exp(v[0]); }},
      {"log", {{3, 5}}, [](Vars& v) { return log(v[0]); }, 0.5, 2},
      {"sqrt", {{3, 5}}, [](Vars& v) { return sqrt(v[0]); }, 0.5, 2},
      {"square", {{3, 5}}, [](Vars& v) { return square(v[0]); }},
      {"abs", {{3, 5}}, [](Vars& v) { return abs(v[0]); }, 0.1, 2},
      {"relu", {{3, 5}}, [](Vars& v) { return relu(affine(v[0], 1, -0.5)); }, 0, 0.4},
      {"leaky_relu", {{3, 5}}, [](Vars& v) { return leaky_relu(v[0], 0.2); }, -2, -0.1},
      {"silu", {{3, 5}}, [](Vars& v) { return silu(v[0]); }, -3, 3},
      {"gelu", {{3, 5}}, [](Vars& v) { return gelu(v[0]); }, -3, 3},
      {"sigmoid", {{3, 5}}, [](Vars& v) { return sigmoid(v[0]); }, -3, 3},
      {"tanh", {{3, 5}}, [](Vars& v) { return tanh(v[0]); }},
      {"clamp", {{3, 5}}, [](Vars& v) { return clamp(v[0], -2, 2); }},
      {"bias_gelu", {{3, 5}, {5}}, [](Vars& v) { return bias_gelu(v[0], v[1]); }, -2, 2},
      {"select_rows",
       {{4, 5}, {5}},
       [](Vars& v) {
         return select_rows(constant({1, 0, 0, 1}, {4}), v[0], v[1]);
       }},
      {"dropout",
       {{3, 5}},
       [](Vars& v) {
         Rng rng(1);
         return dropout(v[0], 0.3, rng);
       }},
      {"drop_path",
       {{6, 5}},
       [](Vars& v) {
         Rng rng(1);
         return drop_path(v[0], 0.3, rng);
       }},
  };
}

std::vector<OpCase> shape_cases() {
  return {
      {"reshape",
       {{3, 4}},
       [](Vars& v) {
         return reshape(v[0], {2, -1});
       }},
      {"permute",
       {{2, 3, 4}},
       [](Vars& v) {
         return permute(v[0], {2, 0, 1});
       }},
      {"slice", {{3, 5}}, [](Vars& v) { return slice(v[0], 1, 1, 4); }},
      {"concat",
       {{2, 3}, {2, 2}},
       [](Vars& v) {
         return concat({v[0], v[1]}, 1);
       }},
      {"expand", {{2, 1, 3}}, [](Vars& v) { return expand(v[0], 1, 4); }},
      {"gather_rows",
       {{4, 3}},
       [](Vars& v) {
         return gather_rows(v[0], index({0, 3, 3, 1, 0, 2}, {2, 3}));
       }},
      {"gather_tokens",
       {{2, 4, 3}},
       [](Vars& v) {
         return gather_tokens(v[0], index({0, 3, 3, 1, 0, 2}, {2, 3}));
       }},
      {"sum", {{3, 5}}, [](Vars& v) { return sum(v[0]); }},
      {"mean", {{3, 5}}, [](Vars& v) { return mean(v[0]); }},
      {"sum_axis", {{2, 3, 5}}, [](Vars& v) { return sum_axis(v[0], 1); }},
      {"mean_axis", {{2, 3, 5}}, [](Vars& v) { return mean_axis(v[0], 1); }},
  };
}

std::vector<OpCase> layer_cases() {
  return {
      {"matmul", {{3, 5}, {4, 5}}, [](Vars& v) { return matmul(v[0], v[1], false, true); }},
      {"linear", {{2, 3, 5}, {4, 5}, {4}}, [](Vars& v) { return linear(v[0], v[1], v[2]); }},
      {"conv2d",
       {{2, 3, 7, 5}, {4, 3, 3, 3}, {4}},
       [](Vars& v) {
         return conv2d(v[0], v[1], v[2], 2, Padding{0, 1, 1, 0});
       }},
      {"avg_pool", {{2, 3, 5, 4}}, [](Vars& v) { return avg_pool(v[0], 2); }},
      {"max_pool", {{2, 3, 4, 4}}, [](Vars& v) { return max_pool(v[0], 2); }},
      {"upsample", {{2, 3, 2, 3}}, [](Vars& v) { return upsample(v[0], 2); }},
      {"layer_norm", {{3, 6}, {6}, {6}}, [](Vars& v) { return layer_norm(v[0], v[1], v[2], 1e-6); }},
      {"group_norm", {{2, 6, 3, 3}, {6}, {6}}, [](Vars& v) { return group_norm(v[0], v[1], v[2], 3, 1e-6); }},
      {"group_norm_silu", {{2, 6, 3, 3}, {6}, {6}}, [](Vars& v) { return group_norm_silu(v[0], v[1], v[2], 2, 1e-6); }},
      {"batch_norm",
       {{3, 4, 2, 3}, {4}, {4}},
       [](Vars& v) {
         const Options f64{DType::f64, Device::cpu};
         return batch_norm(v[0], v[1], v[2], zeros({4}, f64), ones({4}, f64), true, 0.1, 1e-5);
       }},
      {"unit_norm", {{2, 5, 3}}, [](Vars& v) { return unit_norm(v[0], 1, 1e-10); }},
      {"attention", {{2, 5, 24}}, [](Vars& v) { return attention(v[0], 2); }},
      {"softmax", {{3, 5}}, [](Vars& v) { return softmax(v[0]); }},
      {"log_softmax", {{3, 5}}, [](Vars& v) { return log_softmax(v[0]); }},
      {"soft_cross_entropy",
       {{4, 7}},
       [](Vars& v) {
         return soft_cross_entropy(v[0], distributions(), constant({1, 0, 1, 1}, {4}), 0.1);
       }},
      {"cross_entropy",
       {{4, 7}},
       [](Vars& v) {
         return cross_entropy(v[0], index({6, 0, 2, 2}, {4}), Tensor(), 0.1);
       }},
      // quantized = x itself, so that the value moves with x as its gradient claims.
      {"straight_through", {{3, 5}}, [](Vars& v) { return straight_through(v[0], v[0].value()); }},
  };
}

}  // namespace

std::vector<OpCase> op_cases() {
  std::vector<OpCase> all;
  for (auto group : {elementwise_cases(), shape_cases(), layer_cases()})
    all.insert(all.end(), group.begin(), group.end());
  return all;
}

}  // namespace addp
