// Elementwise ops: one operand, two operands (the second may repeat over leading axes), biased GELU, row selection.
#include <algorithm>

#include "autograd/ops.h"
#include "tensor/dispatch.h"

namespace addp {
namespace {

using kernel::Binary;
using kernel::Unary;

Tensor apply(Binary op, const Tensor& a, const Tensor& b) {
  Tensor y = empty_like(a);
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::binary<T>(dev, op, y.ptr<T>(), a.ptr<T>(), b.ptr<T>(), a.numel(), b.numel());
  });
  return y;
}

Tensor scaled(const Tensor& x, double factor, double shift = 0) {
  Tensor y = empty_like(x);
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::unary_fwd<T>(dev, Unary::affine, y.ptr<T>(), x.ptr<T>(), x.numel(), factor, shift);
  });
  return y;
}

// factor * x summed over the leading axes that `shape` does not have.
Tensor fold(const Tensor& x, const Shape& shape, double factor = 1) {
  if (x.numel() == shape.numel()) return (factor == 1 ? x : scaled(x, factor)).reshape(shape);
  Tensor y = empty(shape, x);
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    const int64_t repeats = y.numel() ? x.numel() / y.numel() : 0;
    kernel::sum_axis<T>(dev, y.ptr<T>(), x.ptr<T>(), 1, repeats, y.numel(), factor);
  });
  return y;
}

// b's shape, leading 1s ignored, must be that of a's trailing axes.
void check_operands(const char* op, const Var& a, const Var& b) {
  const Shape &as = a.shape(), &bs = b.shape();
  const auto first = std::find_if(bs.begin(), bs.end(), [](int64_t extent) { return extent != 1; });
  const int64_t rank = bs.end() - first;
  check(rank <= a.rank() && std::equal(first, bs.end(), as.end() - rank), op, ": the second operand, ", bs,
        ", must have the shape of the trailing axes of the first, ", as);
  check(a.options().dtype == b.options().dtype, op, ": operands are ", dtype_name(a.options().dtype), " and ",
        dtype_name(b.options().dtype));
}

// y = op(x; a, b)
Var unary(const char* name, Unary op, const Var& x, double a = 0, double b = 0) {
  Tensor y = empty_like(x.value());
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::unary_fwd<T>(dev, op, y.ptr<T>(), x.value().ptr<T>(), x.numel(), a, b);
  });
  return record(name, y, {x}, [=](const Tensor& dy) {
    Tensor dx = empty_like(dy);
    dispatch(dx, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::unary_bwd<T>(dev, op, dx.ptr<T>(), dy.ptr<T>(), x.value().ptr<T>(), x.numel(), a, b);
    });
    return Gradients{dx};
  });
}

}  // namespace

Var add(const Var& a, const Var& b) {
  check_operands("add", a, b);
  return record("add", apply(Binary::add, a.value(), b.value()), {a, b}, [b = b.edge()](const Tensor& dy) {
    return Gradients{dy, b.needs_grad() ? fold(dy, b.shape()) : Tensor()};
  });
}

Var sub(const Var& a, const Var& b) {
  check_operands("sub", a, b);
  return record("sub", apply(Binary::sub, a.value(), b.value()), {a, b}, [b = b.edge()](const Tensor& dy) {
    return Gradients{dy, b.needs_grad() ? fold(dy, b.shape(), -1) : Tensor()};
  });
}

Var mul(const Var& a, const Var& b) {
  check_operands("mul", a, b);
  return record("mul", apply(Binary::mul, a.value(), b.value()), {a, b}, [=](const Tensor& dy) {
    Gradients d(2);
    if (a.needs_grad()) d[0] = apply(Binary::mul, dy, b.value());
    if (b.needs_grad()) d[1] = fold(apply(Binary::mul, dy, a.value()), b.shape());
    return d;
  });
}

// d(a / b) = da / b - (a / b) db / b
Var div(const Var& a, const Var& b) {
  check_operands("div", a, b);
  const Tensor y = apply(Binary::div, a.value(), b.value());
  return record("div", y, {a, b}, [y, a = a.edge(), b](const Tensor& dy) {
    Gradients d(2);
    const Tensor da = apply(Binary::div, dy, b.value());
    if (a.needs_grad()) d[0] = da;
    if (b.needs_grad()) d[1] = fold(apply(Binary::mul, da, y), b.shape(), -1);
    return d;
  });
}

Var affine(const Var& x, double scale, double shift) {
  return record("affine", scaled(x.value(), scale, shift), {x},
                [=](const Tensor& dy) { return Gradients{scaled(dy, scale)}; });
}
Var exp(const Var& x) { return unary("exp", Unary::exp, x); }
Var log(const Var& x) { return unary("log", Unary::log, x); }
Var sqrt(const Var& x) { return unary("sqrt", Unary::sqrt, x); }
Var square(const Var& x) { return unary("square", Unary::square, x); }
Var abs(const Var& x) { return unary("abs", Unary::abs, x); }
Var relu(const Var& x) { return unary("relu", Unary::relu, x); }
Var leaky_relu(const Var& x, double slope) { return unary("leaky_relu", Unary::leaky_relu, x, slope); }
Var silu(const Var& x) { return unary("silu", Unary::silu, x); }
Var gelu(const Var& x) { return unary("gelu", Unary::gelu, x); }
Var sigmoid(const Var& x) { return unary("sigmoid", Unary::sigmoid, x); }
Var tanh(const Var& x) { return unary("tanh", Unary::tanh, x); }

Var clamp(const Var& x, double low, double high) {
  check(low <= high, "clamp: bounds are ", low, " and ", high);
  return unary("clamp", Unary::clamp, x, low, high);
}

Var bias_gelu(const Var& x, const Var& bias) {
  const int64_t D = x.dim(-1), N = D ? x.numel() / D : 0;
  check(bias.shape() == Shape{D}, "bias_gelu: bias must be ", Shape{D}, ", is ", bias.shape(), "; x is ", x.shape());
  const auto forward = [=](const Tensor& value) {
    Tensor y = empty_like(value);
    dispatch(y, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::bias_gelu_fwd<T>(dev, y.ptr<T>(), value.ptr<T>(), bias.value().ptr<T>(), N, D);
    });
    return y;
  };
  const auto backward = [=, x = x.saved()](const Tensor& dy) {
    const Tensor value = x.recall();
    Tensor dx = empty_like(dy);
    dispatch(dx, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::bias_gelu_bwd<T>(dev, dx.ptr<T>(), dy.ptr<T>(), value.ptr<T>(), bias.value().ptr<T>(), N, D);
    });
    return Gradients{dx, bias.needs_grad() ? fold(dx, bias.shape()) : Tensor()};
  };
  const auto recompute = [forward, x = x.saved()] { return forward(x.recall()); };
  return record("bias_gelu", forward(x.value()), {x, bias}, backward, recompute);
}

Var select_rows(const Tensor& mask, const Var& a, const Var& b) {
  const int64_t D = a.dim(-1), N = mask.numel();
  Shape shape = mask.shape();
  shape.push_back(D);
  check((a.shape() == shape || a.shape() == Shape{D}) && (b.shape() == shape || b.shape() == Shape{D}),
        "select_rows: a and b must be ", shape, " or ", Shape{D}, ", are ", a.shape(), " and ", b.shape());
  const Tensor chosen = to(mask, a.options());
  // Rows of `from` where the mask is 1 (or 0), zeros elsewhere, or rows of two tensors.
  const auto select = [=](const Tensor* on, const Tensor* off) {
    Tensor y = empty(shape, chosen);
    dispatch(y, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::select_rows<T>(dev, y.ptr<T>(), chosen.ptr<T>(), on ? on->ptr<T>() : nullptr,
                             on && on->shape() != shape ? 1 : N, off ? off->ptr<T>() : nullptr,
                             off && off->shape() != shape ? 1 : N, N, D);
    });
    return y;
  };
  return record("select_rows", select(&a.value(), &b.value()), {a, b},
                [=, a = a.edge(), b = b.edge()](const Tensor& dy) {
                  Gradients d(2);
                  if (a.needs_grad()) d[0] = fold(select(&dy, nullptr), a.shape());
                  if (b.needs_grad()) d[1] = fold(select(nullptr, &dy), b.shape());
                  return d;
                });
}

}  // namespace addp
