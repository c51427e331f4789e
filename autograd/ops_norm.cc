// Normalisation: layer norm, group norm (with SiLU), batch norm, unit norm.
#include "autograd/ops.h"
#include "tensor/dispatch.h"

namespace addp {

Var layer_norm(const Var& x, const Var& weight, const Var& bias, double eps) {
  const int64_t D = x.dim(-1), N = D ? x.numel() / D : 0;
  check(weight.shape() == Shape{D} && bias.shape() == Shape{D}, "layer_norm: weight and bias must be ", Shape{D},
        ", are ", weight.shape(), " and ", bias.shape(), "; x is ", x.shape());
  Tensor mean = empty({N}, x.value()), rstd = empty({N}, x.value());
  const auto forward = [=] {
    Tensor y = empty_like(x.value());
    dispatch(y, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::layer_norm_fwd<T>(dev, y.ptr<T>(), mean.ptr<T>(), rstd.ptr<T>(), x.value().ptr<T>(),
                                weight.value().ptr<T>(), bias.value().ptr<T>(), N, D, eps);
    });
    return y;
  };
  const auto backward = [=](const Tensor& dy) {
    Tensor dx = empty_like(dy), dweight = empty({D}, dy), dbias = empty({D}, dy);
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::layer_norm_bwd<T>(dev, dx.ptr<T>(), dweight.ptr<T>(), dbias.ptr<T>(), dy.ptr<T>(), x.value().ptr<T>(),
                                weight.value().ptr<T>(), mean.ptr<T>(), rstd.ptr<T>(), N, D);
    });
    return Gradients{dx, dweight, dbias};
  };
  return record("layer_norm", forward(), {x, weight, bias}, backward, forward);
}

namespace {

// The extents [B, C, S] of an image-like tensor, S = everything after the channels.
struct Planes {
  int64_t B, C, S;
};

Planes planes_of(const char* op, const Var& x) {
  check(x.rank() >= 2, op, ": x must be [B, C, ...], is ", x.shape());
  const int64_t B = x.dim(0), C = x.dim(1);
  return {B, C, B * C > 0 ? x.numel() / (B * C) : 0};
}

void check_affine(const char* op, const Var& x, const Var& weight, const Var& bias) {
  const Shape expected{x.dim(1)};
  check(weight.shape() == expected && bias.shape() == expected, op, ": weight and bias must be ", expected, ", are ",
        weight.shape(), " and ", bias.shape(), "; x is ", x.shape());
}

Var grouped_norm(const char* op, const Var& x, const Var& weight, const Var& bias, int64_t G, double eps, bool silu) {
  const auto [B, C, S] = planes_of(op, x);
  check_affine(op, x, weight, bias);
  check(G > 0 && C % G == 0, op, ": ", C, " channels cannot be split into ", G, " groups");
  Tensor y = empty_like(x.value()), mean = empty({B, G}, y), rstd = empty({B, G}, y);
  dispatch(y, [&, B = B, C = C, S = S](auto dev, auto t) {
    using T = decltype(t);
    kernel::group_norm_fwd<T>(dev, y.ptr<T>(), mean.ptr<T>(), rstd.ptr<T>(), x.value().ptr<T>(),
                              weight.value().ptr<T>(), bias.value().ptr<T>(), B, C, S, G, eps, silu);
  });
  return record(op, y, {x, weight, bias}, [=, B = B, C = C, S = S](const Tensor& dy) {
    Tensor dx = empty_like(dy), dweight = empty({C}, dy), dbias = empty({C}, dy);
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::group_norm_bwd<T>(dev, dx.ptr<T>(), dweight.ptr<T>(), dbias.ptr<T>(), dy.ptr<T>(), x.value().ptr<T>(),
                                weight.value().ptr<T>(), bias.value().ptr<T>(), mean.ptr<T>(), rstd.ptr<T>(), B, C, S,
                                G, silu);
    });
    return Gradients{dx, dweight, dbias};
  });
}

}  // namespace

Var group_norm(const Var& x, const Var& weight, const Var& bias, int64_t groups, double eps) {
  return grouped_norm("group_norm", x, weight, bias, groups, eps, false);
}

Var group_norm_silu(const Var& x, const Var& weight, const Var& bias, int64_t groups, double eps) {
  return grouped_norm("group_norm_silu", x, weight, bias, groups, eps, true);
}

namespace {

// running += momentum * (moment - running)
template <class T, class Device>
void move_towards(Device dev, const Tensor& running, const Tensor& moment, double momentum) {
  kernel::lerp<T>(dev, running.ptr<T>(), moment.ptr<T>(), moment.numel(), momentum);
}

// Mean and biased variance of each channel of x; running_* move towards them, the variance made unbiased.
void batch_moments(const Tensor& x, int64_t B, int64_t C, int64_t S, const Tensor& mean, const Tensor& var,
                   const Tensor& running_mean, const Tensor& running_var, double momentum) {
  const double n = double(B) * double(S);
  check(n > 1, "batch_norm: training needs more than one value per channel, x is ", x.shape());
  dispatch(x, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::channel_moments<T>(dev, mean.ptr<T>(), var.ptr<T>(), x.ptr<T>(), B, C, S);
    Tensor unbiased = empty({C}, x);
    kernel::unary_fwd<T>(dev, kernel::Unary::affine, unbiased.ptr<T>(), var.ptr<T>(), C, n / (n - 1), 0);
    move_towards<T>(dev, running_mean, mean, momentum);
    move_towards<T>(dev, running_var, unbiased, momentum);
  });
}

}  // namespace

Var batch_norm(const Var& x, const Var& weight, const Var& bias, const Tensor& running_mean, const Tensor& running_var,
               bool training, double momentum, double eps) {
  const auto [B, C, S] = planes_of("batch_norm", x);
  const bool affine = weight.defined();
  check(affine == bias.defined(), "batch_norm: weight and bias must be given together");
  if (affine) check_affine("batch_norm", x, weight, bias);
  check(running_mean.shape() == Shape{C} && running_var.shape() == Shape{C}, "batch_norm: running moments must be ",
        Shape{C}, ", are ", running_mean.shape(), " and ", running_var.shape());
  Tensor mean, var;  // our own copies: running_* may have moved when backward runs
  if (training) {
    mean = empty({C}, x.value());
    var = empty({C}, x.value());
    batch_moments(x.value(), B, C, S, mean, var, running_mean, running_var, momentum);
  } else {
    mean = clone(running_mean);
    var = clone(running_var);
  }
  Tensor y = empty_like(x.value());
  dispatch(y, [&, B = B, C = C, S = S](auto dev, auto t) {
    using T = decltype(t);
    kernel::batch_norm_fwd<T>(dev, y.ptr<T>(), x.value().ptr<T>(), mean.ptr<T>(), var.ptr<T>(),
                              affine ? weight.value().ptr<T>() : nullptr, affine ? bias.value().ptr<T>() : nullptr, B,
                              C, S, eps);
  });
  return record("batch_norm", y, {x, weight, bias}, [=, B = B, C = C, S = S](const Tensor& dy) {
    Gradients d{empty_like(dy), Tensor(), Tensor()};
    if (affine) d[1] = empty({C}, dy), d[2] = empty({C}, dy);
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::batch_norm_bwd<T>(dev, d[0].ptr<T>(), affine ? d[1].ptr<T>() : nullptr, affine ? d[2].ptr<T>() : nullptr,
                                dy.ptr<T>(), x.value().ptr<T>(), mean.ptr<T>(), var.ptr<T>(),
                                affine ? weight.value().ptr<T>() : nullptr, B, C, S, eps, training);
    });
    return d;
  });
}

Var unit_norm(const Var& x, int64_t axis, double eps) {
  check(axis >= -x.rank() && axis < x.rank(), "unit_norm: no axis ", axis, " in ", x.shape());
  if (axis < 0) axis += x.rank();
  int64_t outer = 1, inner = 1;
  for (int64_t a = 0; a < x.rank(); ++a) {
    if (a != axis) (a < axis ? outer : inner) *= x.dim(a);
  }
  const int64_t n = x.dim(axis);
  Tensor y = empty_like(x.value()), norm = empty({outer, inner}, y);
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::unit_norm_fwd<T>(dev, y.ptr<T>(), norm.ptr<T>(), x.value().ptr<T>(), outer, n, inner, eps);
  });
  return record("unit_norm", y, {x}, [=](const Tensor& dy) {
    Tensor dx = empty_like(dy);
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::unit_norm_bwd<T>(dev, dx.ptr<T>(), dy.ptr<T>(), x.value().ptr<T>(), norm.ptr<T>(), outer, n, inner, eps);
    });
    return Gradients{dx};
  });
}

}  // namespace addp
