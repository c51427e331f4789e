// Every differentiable operation, one line each with its shapes. Inputs must share dtype and device; a wrong shape
// throws Error with the op's name, what was expected and what was found. How an op is written: README.md.
#pragma once
#include <utility>
#include <vector>

#include "autograd/var.h"
#include "tensor/random.h"

namespace addp {

// ---- Elementwise (ops_elementwise.cc). b has a's shape, or that of a's trailing axes (leading 1s ignored), and
// repeats.
Var add(const Var& a, const Var& b);                   // a + b
Var sub(const Var& a, const Var& b);                   // a - b
Var mul(const Var& a, const Var& b);                   // a * b
Var div(const Var& a, const Var& b);                   // a / b
Var affine(const Var& x, double scale, double shift);  // scale * x + shift
Var exp(const Var& x);
Var log(const Var& x);
Var sqrt(const Var& x);
Var square(const Var& x);
Var abs(const Var& x);   // gradient 0 at 0
Var relu(const Var& x);  // gradient 0 at 0
Var leaky_relu(const Var& x, double slope);
Var silu(const Var& x);  // x * sigmoid(x)
Var gelu(const Var& x);  // exact: x * Phi(x)
Var sigmoid(const Var& x);
Var tanh(const Var& x);
Var clamp(const Var& x, double low, double high);  // gradient 1 inside and on the bounds, 0 outside
Var bias_gelu(const Var& x, const Var& bias);      // gelu(x + bias); x: [..., D], bias: [D]
// mask ? a : b, row by row. mask: [...] of 0 and 1, no gradient; a, b: [..., D] or [D] (the same for every row).
Var select_rows(const Tensor& mask, const Var& a, const Var& b);

// ---- Shape (ops_shape.cc)
Var reshape(const Var& x, Shape shape);                    // one extent may be -1
Var permute(const Var& x, const std::vector<int>& order);  // axis a of the result is axis order[a] of x
Var slice(const Var& x, int64_t axis, int64_t begin, int64_t end);
Var concat(const std::vector<Var>& parts, int64_t axis);
Var expand(const Var& x, int64_t axis, int64_t n);       // x: extent 1 at axis -> extent n
Var gather_rows(const Var& table, const Tensor& index);  // table: [N, D], index: [...] i64 -> [..., D]
Var gather_tokens(const Var& x, const Tensor& index);    // x: [B, N, D], index: [B, M] i64 -> [B, M, D]

// ---- Reductions (ops_reduce.cc)
Var sum(const Var& x);                      // [] over all
Var mean(const Var& x);                     // [] over all
Var sum_axis(const Var& x, int64_t axis);   // that axis is removed
Var mean_axis(const Var& x, int64_t axis);  // that axis is removed

// ---- Products (ops_matmul.cc)
// [M, K] x [K, N] -> [M, N], or the same for P pairs: [P, M, K] x [P, K, N]; trans_*: the last two axes are swapped.
Var matmul(const Var& a, const Var& b, bool trans_a = false, bool trans_b = false);
// x: [..., I], weight: [O, I], bias: [O] -> [..., O]. recompute: ops that recall their input (linear, bias_gelu) have
// this one's result computed again in the backward pass, and none needs to be kept for them.
Var linear(const Var& x, const Var& weight, const Var& bias = {}, bool recompute = false);

// ---- Images, [B, C, H, W] (ops_image.cc)
struct Padding {
  int64_t top = 0, left = 0, bottom = 0, right = 0;
};
// weight: [Co, Ci, kh, kw], bias: [Co] or undefined -> [B, Co, Ho, Wo], Ho = (H + top + bottom - kh) / stride + 1.
Var conv2d(const Var& x, const Var& weight, const Var& bias, int64_t stride, Padding padding);
Var avg_pool(const Var& x, int64_t k);  // k x k windows, stride k
Var max_pool(const Var& x, int64_t k);  // k x k windows, stride k
Var upsample(const Var& x, int64_t k);  // nearest neighbour -> [B, C, k H, k W]

// ---- Normalisation (ops_norm.cc)
Var layer_norm(const Var& x, const Var& weight, const Var& bias, double eps);  // x: [..., D], weight, bias: [D]
Var group_norm(const Var& x, const Var& weight, const Var& bias, int64_t groups, double eps);       // x: [B, C, ...]
Var group_norm_silu(const Var& x, const Var& weight, const Var& bias, int64_t groups, double eps);  // silu(group_norm)
// x: [B, C, ...]; weight, bias: [C] or both undefined. training: batch moments, and running_* (in place, not
// differentiated) move by `momentum` towards them (unbiased variance, as PyTorch); else running_* are used.
Var batch_norm(const Var& x, const Var& weight, const Var& bias, const Tensor& running_mean, const Tensor& running_var,
               bool training, double momentum, double eps);
Var unit_norm(const Var& x, int64_t axis, double eps);  // x / (|x| + eps) along an axis

// ---- Attention (ops_attention.cc)
// qkv: [B, L, 3 D] packed q, k, v, each [H, Dh] with D = heads * Dh -> [B, L, D]; scale Dh^-0.5.
Var attention(const Var& qkv, int64_t heads, bool causal = false);

// ---- Softmax and losses (ops_loss.cc)
Var softmax(const Var& x);      // over the last axis
Var log_softmax(const Var& x);  // over the last axis
// Mean over rows, weighted by row_weight, of the cross entropy against (1 - smoothing) target + smoothing / V -> [].
// logits: [..., V]; target: [..., K] with K <= V, zero-padded, no gradient; row_weight: [...] or undefined (all 1).
Var soft_cross_entropy(const Var& logits, const Tensor& target, const Tensor& row_weight, double smoothing);
// The same with one-hot targets; labels: [...] i64 in [0, V).
Var cross_entropy(const Var& logits, const Tensor& labels, const Tensor& row_weight, double smoothing);

// ---- Regularisation (ops_random.cc); identity when p is 0
Var dropout(const Var& x, double p, Rng& rng);    // zeroes elements, scales the others by 1 / (1 - p)
Var drop_path(const Var& x, double p, Rng& rng);  // zeroes whole samples (first axis), scales the others

// ---- Quantization (ops_quantize.cc)
Var straight_through(const Var& x, const Tensor& quantized);  // value `quantized`, gradient passed to x unchanged

// Operators for readable formulas.
inline Var operator+(const Var& a, const Var& b) { return add(a, b); }
inline Var operator-(const Var& a, const Var& b) { return sub(a, b); }
inline Var operator*(const Var& a, const Var& b) { return mul(a, b); }
inline Var operator/(const Var& a, const Var& b) { return div(a, b); }
inline Var operator*(double s, const Var& x) { return affine(x, s, 0); }
inline Var operator+(const Var& x, double s) { return affine(x, 1, s); }
inline Var operator-(const Var& x) { return affine(x, -1, 0); }

}  // namespace addp
