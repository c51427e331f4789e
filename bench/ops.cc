// The op families at given sizes.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "autograd/codes.h"
#include "autograd/ops.h"
#include "bench/cases.h"
#include "nn/optimizer.h"

namespace addp {

Tensor bench_input(Shape shape, int k) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i) + static_cast<double>(k)));
  return from_vector(values, shape);
}

namespace {

using Dims = std::vector<int64_t>;
using Function = std::function<Var(std::vector<Var>&)>;

struct Family {
  const char* dims;  // their names
  std::vector<Shape> (*inputs)(const Dims&);
  Var (*forward)(std::vector<Var>&, const Dims&);
};

const std::map<std::string, Family> kFamilies = {
    {"linear",
     {"M K N",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1]}, {d[2], d[1]}, {d[2]}};
      },
      [](std::vector<Var>& v, const Dims&) { return linear(v[0], v[1], v[2]); }}},
    {"attention",
     {"B L H Dh",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1], 3 * d[2] * d[3]}};
      },
      [](std::vector<Var>& v, const Dims& d) { return attention(v[0], d[2]); }}},
    {"conv",
     {"B Ci Co side kernel stride",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1], d[3], d[3]}, {d[2], d[1], d[4], d[4]}};
      },
      [](std::vector<Var>& v, const Dims& d) {
        const int64_t p = d[4] == 1 ? 0 : 1;
        return conv2d(v[0], v[1], {}, d[5], {p, p, p, p});
      }}},
    {"layer_norm",
     {"N D",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1]}, {d[1]}, {d[1]}};
      },
      [](std::vector<Var>& v, const Dims&) { return layer_norm(v[0], v[1], v[2], 1e-6); }}},
    {"group_norm_silu",
     {"B C side",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1], d[2], d[2]}, {d[1]}, {d[1]}};
      },
      [](std::vector<Var>& v, const Dims&) { return group_norm_silu(v[0], v[1], v[2], 32, 1e-6); }}},
    {"bias_gelu",
     {"N D",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1]}, {d[1]}};
      },
      [](std::vector<Var>& v, const Dims&) { return bias_gelu(v[0], v[1]); }}},
    {"softmax",
     {"N D",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1]}};
      },
      [](std::vector<Var>& v, const Dims&) { return softmax(v[0]); }}},
    {"upsample",
     {"B C side",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1], d[2], d[2]}};
      },
      [](std::vector<Var>& v, const Dims&) { return upsample(v[0], 2); }}},
    {"avg_pool",
     {"B C side",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1], d[2], d[2]}};
      },
      [](std::vector<Var>& v, const Dims&) { return avg_pool(v[0], 2); }}},
    {"batch_norm",
     {"B C side",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1], d[2], d[2]}, {d[1]}, {d[1]}};
      },
      [](std::vector<Var>& v, const Dims& d) {
        return batch_norm(v[0], v[1], v[2], zeros({d[1]}), ones({d[1]}), true, 0.1, 1e-5);
      }}},
    {"add",
     {"N D",
      [](const Dims& d) {
        return std::vector<Shape>{{d[0], d[1]}, {d[0], d[1]}};
      },
      [](std::vector<Var>& v, const Dims&) { return add(v[0], v[1]); }}},
};

double abs_sum(const Tensor& x) {
  double sum = 0;
  for (double v : to_vector<double>(x)) sum += std::fabs(v);
  return sum;
}

// Forward (and backward from a given gradient) of one function of float leaves.
BenchCase differentiable(const Family& family, bool backward_too, const Dims& dims) {
  struct State {
    std::vector<Var> inputs;
    Tensor upstream;
  };
  const auto state = std::make_shared<State>();
  int k = 0;
  for (const Shape& shape : family.inputs(dims)) state->inputs.emplace_back(bench_input(shape, k++), backward_too);
  if (backward_too) {
    NoGrad no_grad;
    state->upstream = bench_input(family.forward(state->inputs, dims).shape(), 9);
  }
  BenchCase c;
  c.run = [=, &family] {
    if (!backward_too) {
      NoGrad no_grad;
      family.forward(state->inputs, dims);
    } else {
      for (Var& v : state->inputs) v.clear_grad();
      backward(family.forward(state->inputs, dims), state->upstream);
    }
    return 0.0;
  };
  c.checksum = [=] {
    if (!backward_too) {
      NoGrad no_grad;
      return abs_sum(family.forward(state->inputs, dims).value());
    }
    double sum = 0;
    for (const Var& v : state->inputs) sum += abs_sum(v.grad());
    return sum;
  };
  return c;
}

// Soft cross entropy with the gradient of the logits. dims: N V K.
BenchCase cross_entropy_case(const Dims& d) {
  const auto logits = std::make_shared<Var>(bench_input({d[0], d[1]}, 0), true);
  const Tensor target = softmax(Var(bench_input({d[0], d[2]}, 1))).value();
  BenchCase c;
  c.run = [=] {
    logits->clear_grad();
    backward(soft_cross_entropy(*logits, target, {}, 0.1));
    return 0.0;
  };
  c.checksum = [=] { return abs_sum(logits->grad()); };
  return c;
}

// Nearest codes. dims: N K D.
BenchCase nearest_case(const Dims& d) {
  const Tensor z = bench_input({d[0], d[2]}, 0), codebook = bench_input({d[1], d[2]}, 1);
  const auto codes = std::make_shared<Tensor>();
  BenchCase c;
  c.run = [=] {
    *codes = nearest_codes(z, codebook);
    return 0.0;
  };
  c.checksum = [=] { return abs_sum(gather_rows(Var(codebook), *codes).value()); };
  return c;
}

// Rows of a table by index, and the sum back into the table. dims: M rows read, N rows of the table, D.
BenchCase gather_case(bool backward_too, const Dims& d) {
  const auto table = std::make_shared<Var>(bench_input({d[1], d[2]}, 0), backward_too);
  std::vector<int64_t> rows(static_cast<size_t>(d[0]));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i) * 7 % d[1];
  const Tensor index = from_vector(rows, {d[0]}), upstream = bench_input({d[0], d[2]}, 9);
  BenchCase c;
  c.run = [=] {
    table->clear_grad();
    const Var y = gather_rows(*table, index);
    if (backward_too) backward(y, upstream);
    return 0.0;
  };
  c.checksum = [=] { return abs_sum(backward_too ? table->grad() : gather_rows(*table, index).value()); };
  return c;
}

// One AdamW step over matrices of D x D that hold `millions` million weights. dims: D count.
BenchCase adamw_case(const Dims& d) {
  struct State {
    std::vector<NamedVar> parameters;
    std::vector<Tensor> gradients;
    std::unique_ptr<AdamW> optimizer;
  };
  const auto state = std::make_shared<State>();
  const Tensor start = bench_input({d[0], d[0]}, 0), gradient = bench_input({d[0], d[0]}, 1);
  for (int64_t i = 0; i < d[1]; ++i) {
    state->parameters.push_back({"weight" + std::to_string(i), Var(clone(start), true)});
    state->gradients.push_back(clone(gradient));
  }
  state->optimizer = std::make_unique<AdamW>(state->parameters, AdamwConfig{});
  BenchCase c;
  c.run = [=] {
    for (size_t i = 0; i < state->gradients.size(); ++i) state->parameters[i].var.set_grad(state->gradients[i]);
    state->optimizer->step(1e-3);
    return 0.0;
  };
  c.checksum = [=] { return abs_sum(state->parameters[0].var.value()); };
  return c;
}

void check_dims(const std::string& family, const Dims& dims, const std::string& names) {
  const auto count = static_cast<size_t>(std::count(names.begin(), names.end(), ' ') + 1);
  check_as(ErrorKind::usage, dims.size() == count, family, ": expected the sizes ", names, ", found ", dims.size());
}

}  // namespace

BenchCase make_op_case(const std::string& family, bool backward, const std::vector<int64_t>& dims) {
  if (const auto found = kFamilies.find(family); found != kFamilies.end()) {
    check_dims(family, dims, found->second.dims);
    return differentiable(found->second, backward, dims);
  }
  if (family == "soft_cross_entropy") return check_dims(family, dims, "N V K"), cross_entropy_case(dims);
  if (family == "nearest_codes") return check_dims(family, dims, "N K D"), nearest_case(dims);
  if (family == "gather_rows") return check_dims(family, dims, "M N D"), gather_case(backward, dims);
  if (family == "adamw") return check_dims(family, dims, "D count"), adamw_case(dims);
  fail(ErrorKind::usage, "bench: unknown op family '", family, "'");
}

}  // namespace addp
