// Matrix products and the linear layer.
#include "autograd/ops.h"
#include "tensor/dispatch.h"

namespace addp {
namespace {

// One product, or P of them when the leading extent says so.
struct ProductShape {
  int64_t P, M, N, K;
};

// out = op(a) op(b) for P dense pairs, sizes as in kernel::gemm.
void multiply(const Tensor& out, const Tensor& a, const Tensor& b, ProductShape s, bool trans_a, bool trans_b) {
  dispatch(out, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::gemm<T>(dev, out.ptr<T>(), a.ptr<T>(), b.ptr<T>(), s.M, s.N, s.K, trans_a, trans_b, false, s.P, s.M * s.N,
                    s.M * s.K, s.K * s.N);
  });
}

ProductShape product_shape(const Var& a, const Var& b, bool trans_a, bool trans_b) {
  const int64_t rank = a.rank();
  check((rank == 2 || rank == 3) && b.rank() == rank, "matmul: expected two matrices or two batches of them, found ",
        a.shape(), " and ", b.shape());
  const int64_t M = a.dim(trans_a ? -1 : -2), K = a.dim(trans_a ? -2 : -1), N = b.dim(trans_b ? -2 : -1);
  check(b.dim(trans_b ? -1 : -2) == K && (rank == 2 || a.dim(0) == b.dim(0)),
        "matmul: inner or batch extents differ: ", a.shape(), trans_a ? " transposed" : "", " times ", b.shape(),
        trans_b ? " transposed" : "");
  return {rank == 3 ? a.dim(0) : 1, M, N, K};
}

}  // namespace

Var matmul(const Var& a, const Var& b, bool trans_a, bool trans_b) {
  const ProductShape s = product_shape(a, b, trans_a, trans_b);
  Tensor c = empty(a.rank() == 3 ? Shape{s.P, s.M, s.N} : Shape{s.M, s.N}, a.value());
  multiply(c, a.value(), b.value(), s, trans_a, trans_b);
  return record("matmul", c, {a, b}, [=](const Tensor& dc) {
    Gradients g(2);
    if (a.needs_grad()) {
      g[0] = empty_like(a.value());
      if (trans_a) {
        multiply(g[0], b.value(), dc, {s.P, s.K, s.M, s.N}, trans_b, true);  // op(b) dc^T
      } else {
        multiply(g[0], dc, b.value(), {s.P, s.M, s.K, s.N}, false, !trans_b);  // dc op(b)^T
      }
    }
    if (b.needs_grad()) {
      g[1] = empty_like(b.value());
      if (trans_b) {
        multiply(g[1], dc, a.value(), {s.P, s.N, s.K, s.M}, true, trans_a);  // dc^T op(a)
      } else {
        multiply(g[1], a.value(), dc, {s.P, s.K, s.N, s.M}, !trans_a, false);  // op(a)^T dc
      }
    }
    return g;
  });
}

Var linear(const Var& x, const Var& weight, const Var& bias, bool recompute) {
  check(weight.rank() == 2 && x.rank() >= 1 && x.dim(-1) == weight.dim(1),
        "linear: expected x [..., I] and weight [O, I], found x ", x.shape(), " and weight ", weight.shape());
  const int64_t N = weight.dim(0), K = weight.dim(1), M = x.shape().numel() / K;
  check(!bias.defined() || bias.shape() == Shape{N}, "linear: bias must be [", N, "]");
  Shape shape = x.shape();
  shape.back() = N;
  const auto forward = [=](const Tensor& value) {
    Tensor y = empty(shape, value);
    dispatch(y, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::linear_fwd<T>(dev, y.ptr<T>(), value.ptr<T>(), weight.value().ptr<T>(),
                            bias.defined() ? bias.value().ptr<T>() : nullptr, M, N, K);
    });
    return y;
  };
  const auto backward = [=, x = x.saved()](const Tensor& dy) {
    Gradients g(bias.defined() ? 3 : 2);
    if (weight.needs_grad()) {
      const Tensor value = x.recall();
      g[1] = empty_like(weight.value());
      multiply(g[1], dy, value, {1, N, K, M}, true, false);
    }
    if (x.needs_grad()) {
      g[0] = empty(x.shape(), dy);
      multiply(g[0], dy, weight.value(), {1, M, K, N}, false, false);
    }
    if (bias.needs_grad()) {
      g[2] = empty_like(bias.value());
      dispatch(dy, [&](auto dev, auto t) {
        using T = decltype(t);
        kernel::sum_axis<T>(dev, g[2].ptr<T>(), dy.ptr<T>(), 1, M, N, 1.0);
      });
    }
    return g;
  };
  RecomputeFunction again;
  if (recompute) again = [forward, x = x.saved()] { return forward(x.recall()); };
  std::vector<Var> inputs{x, weight};
  if (bias.defined()) inputs.push_back(bias);
  return record("linear", forward(x.value()), inputs, backward, again);
}

}  // namespace addp
