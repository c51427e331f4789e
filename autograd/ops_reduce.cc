// Sums and means, over everything or over one axis.
#include "autograd/ops.h"
#include "tensor/dispatch.h"

namespace addp {
namespace {

// scale * the sum over the middle one of the extents [outer, n, inner] of x.
Var reduce(const char* op, const Var& x, Shape shape, int64_t outer, int64_t n, int64_t inner, double scale) {
  Tensor y = empty(std::move(shape), x.value());
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::sum_axis<T>(dev, y.ptr<T>(), x.value().ptr<T>(), outer, n, inner, scale);
  });
  return record(op, y, {x}, [=, x = x.edge()](const Tensor& dy) {
    Tensor dx = empty(x.shape(), x.options());
    dispatch(dx, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::broadcast_axis<T>(dev, dx.ptr<T>(), dy.ptr<T>(), outer, n, inner, scale);
    });
    return Gradients{dx};
  });
}

Var reduce_axis(const char* op, const Var& x, int64_t axis, bool mean) {
  check(axis >= -x.rank() && axis < x.rank(), op, ": no axis ", axis, " in ", x.shape());
  if (axis < 0) axis += x.rank();
  Shape shape;
  int64_t outer = 1, inner = 1;
  for (int64_t a = 0; a < x.rank(); ++a) {
    if (a == axis) continue;
    shape.push_back(x.dim(a));
    (a < axis ? outer : inner) *= x.dim(a);
  }
  const int64_t n = x.dim(axis);
  check(n > 0 || !mean, op, ": axis ", axis, " of ", x.shape(), " is empty");
  return reduce(op, x, shape, outer, n, inner, mean ? 1.0 / n : 1.0);
}

}  // namespace

Var sum(const Var& x) { return reduce("sum", x, {}, 1, x.numel(), 1, 1); }

Var mean(const Var& x) {
  check(x.numel() > 0, "mean: x is empty, ", x.shape());
  return reduce("mean", x, {}, 1, x.numel(), 1, 1.0 / x.numel());
}

Var sum_axis(const Var& x, int64_t axis) { return reduce_axis("sum_axis", x, axis, false); }
Var mean_axis(const Var& x, int64_t axis) { return reduce_axis("mean_axis", x, axis, true); }

}  // namespace addp
