// The layers that models are made of: each a few tensors under PyTorch's names and a call that runs one op of
// autograd/ops.h. Random values come from nn/init.h; until then weights are 0 and norms are 1 and 0.
#pragma once
#include <string>

#include "autograd/ops.h"
#include "nn/module.h"

namespace addp {

// Active only when mode.train and p > 0; throws when mode.rng is missing then.
Var dropout(const Var& x, double p, const Mode& mode);
Var drop_path(const Var& x, double p, const Mode& mode);

// Padding that keeps the image size for an odd kernel and stride 1.
inline Padding same_padding(int64_t kernel) { return {kernel / 2, kernel / 2, kernel / 2, kernel / 2}; }

struct Linear {
  Linear(int64_t in, int64_t out, bool with_bias, Options options);

  Var operator()(const Var& x) const { return linear(x, weight, bias); }  // [..., in] -> [..., out]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "weight", weight, Role::parameter);
    if (bias.defined()) f(prefix + "bias", bias, Role::parameter);
  }

  Var weight, bias;  // [out, in], [out] or undefined
};

struct Conv2d {
  // padding defaults to the one that keeps the size at stride 1.
  Conv2d(int64_t in, int64_t out, int64_t kernel, bool with_bias, Options options);
  Conv2d(int64_t in, int64_t out, int64_t kernel, int64_t stride, Padding padding, bool with_bias, Options options);

  Var operator()(const Var& x) const { return conv2d(x, weight, bias, stride, padding); }  // [B, in, H, W]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "weight", weight, Role::parameter);
    if (bias.defined()) f(prefix + "bias", bias, Role::parameter);
  }

  int64_t stride;
  Padding padding;
  Var weight, bias;  // [out, in, kernel, kernel], [out] or undefined
};

struct LayerNorm {
  LayerNorm(int64_t width, double eps, Options options);

  Var operator()(const Var& x) const { return layer_norm(x, weight, bias, eps); }  // over the last axis

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "weight", weight, Role::parameter);
    f(prefix + "bias", bias, Role::parameter);
  }

  double eps;
  Var weight, bias;  // [width]
};

struct GroupNorm {
  // Throws when groups does not divide channels.
  GroupNorm(int64_t groups, int64_t channels, double eps, Options options);

  Var operator()(const Var& x) const { return group_norm(x, weight, bias, groups, eps); }  // [B, channels, ...]
  Var then_silu(const Var& x) const { return group_norm_silu(x, weight, bias, groups, eps); }

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "weight", weight, Role::parameter);
    f(prefix + "bias", bias, Role::parameter);
  }

  int64_t groups;
  double eps;
  Var weight, bias;  // [channels]
};

// PyTorch's num_batches_tracked is not kept: with a fixed momentum nothing reads it.
struct BatchNorm {
  BatchNorm(int64_t channels, double eps, double momentum, bool affine, Options options);

  // train: the batch's moments normalise, and the running ones move. x: [B, channels, ...]
  Var operator()(const Var& x, bool train) const {
    return batch_norm(x, weight, bias, running_mean.value(), running_var.value(), train, momentum, eps);
  }

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    if (weight.defined()) {
      f(prefix + "weight", weight, Role::parameter);
      f(prefix + "bias", bias, Role::parameter);
    }
    f(prefix + "running_mean", running_mean, Role::buffer);
    f(prefix + "running_var", running_var, Role::buffer);
  }

  double eps, momentum;
  Var weight, bias;               // [channels], undefined without affine
  Var running_mean, running_var;  // [channels]
};

struct Embedding {
  Embedding(int64_t rows, int64_t width, Options options);

  Var operator()(const Tensor& index) const { return gather_rows(weight, index); }  // [...] i64 -> [..., width]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "weight", weight, Role::parameter);
  }

  Var weight;  // [rows, width]
};

}  // namespace addp
