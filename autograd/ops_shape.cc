// Ops that move elements without computing: reshape, permute, slice, concat, expand, gather.
#include <algorithm>

#include "autograd/ops.h"
#include "tensor/dispatch.h"

namespace addp {
namespace {

// An axis splits a shape into [outer, n, inner].
struct Split {
  int64_t outer = 1, n = 1, inner = 1;
};

Split split_at(const Shape& shape, int64_t axis) {
  Split s;
  s.n = shape[axis];
  for (int64_t a = 0; a < axis; ++a) s.outer *= shape[a];
  for (size_t a = axis + 1; a < shape.size(); ++a) s.inner *= shape[a];
  return s;
}

// A possibly negative axis as a position; throws when there is no such axis.
int64_t checked_axis(const char* op, const Var& x, int64_t axis) {
  check(axis >= -x.rank() && axis < x.rank(), op, ": no axis ", axis, " in ", x.shape());
  return axis < 0 ? axis + x.rank() : axis;
}

Tensor permuted(const Tensor& x, const std::vector<int>& order) {
  Shape shape;
  for (int axis : order) shape.push_back(x.dim(axis));
  Tensor y = empty(shape, x);
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::permute<T>(dev, y.ptr<T>(), x.ptr<T>(), x.shape(), order);
  });
  return y;
}

// Rows [begin, begin + part) of the n at the split axis: out of `whole` into `part`, or the other way round.
void copy_out(const Tensor& part, const Tensor& whole, int64_t begin, int64_t axis) {
  const Split p = split_at(part.shape(), axis), w = split_at(whole.shape(), axis);
  dispatch(part, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::copy_blocks<T>(dev, part.ptr<T>(), p.n * p.inner, whole.ptr<T>() + begin * w.inner, w.n * w.inner,
                           p.n * p.inner, p.outer);
  });
}

void copy_in(const Tensor& whole, const Tensor& part, int64_t begin, int64_t axis) {
  const Split p = split_at(part.shape(), axis), w = split_at(whole.shape(), axis);
  dispatch(part, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::copy_blocks<T>(dev, whole.ptr<T>() + begin * w.inner, w.n * w.inner, part.ptr<T>(), p.n * p.inner,
                           p.n * p.inner, p.outer);
  });
}

// y[b, m, :] = x[b, index[b, m], :]; a shared x has no b.
Var gather(const char* op, const Var& x, const Tensor& index, Shape shape, int64_t B, int64_t N, int64_t M,
           bool shared) {
  const int64_t D = x.dim(-1);
  check(index.dtype() == DType::i64, op, ": index must be i64, is ", dtype_name(index.dtype()));
  Tensor y = empty(std::move(shape), x.value());
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::gather_rows_fwd<T>(dev, y.ptr<T>(), x.value().ptr<T>(), index.ptr<int64_t>(), B, N, M, D, shared);
  });
  return record(op, y, {x}, [=, x = x.edge()](const Tensor& dy) {
    Tensor dx = empty(x.shape(), x.options());
    dispatch(dx, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::gather_rows_bwd<T>(dev, dx.ptr<T>(), dy.ptr<T>(), index.ptr<int64_t>(), B, N, M, D, shared);
    });
    return Gradients{dx};
  });
}

}  // namespace

Var reshape(const Var& x, Shape shape) {
  return record("reshape", x.value().reshape(std::move(shape)), {x},
                [from = x.shape()](const Tensor& dy) { return Gradients{dy.reshape(from)}; });
}

Var permute(const Var& x, const std::vector<int>& order) {
  const int rank = static_cast<int>(x.rank());
  std::vector<int> inverse(rank, -1);
  bool valid = static_cast<int>(order.size()) == rank && rank <= 6;
  for (int a = 0; valid && a < rank; ++a) {
    valid = order[a] >= 0 && order[a] < rank && inverse[order[a]] < 0;
    if (valid) inverse[order[a]] = a;
  }
  check(valid, "permute: order must name each axis of ", x.shape(), " once (at most 6 axes), found ",
        Shape(order.begin(), order.end()));
  return record("permute", permuted(x.value(), order), {x},
                [inverse](const Tensor& dy) { return Gradients{permuted(dy, inverse)}; });
}

Var slice(const Var& x, int64_t axis, int64_t begin, int64_t end) {
  axis = checked_axis("slice", x, axis);
  check(0 <= begin && begin <= end && end <= x.dim(axis), "slice: [", begin, ", ", end, ") is outside axis ", axis,
        " of ", x.shape());
  Shape shape = x.shape();
  shape[axis] = end - begin;
  Tensor y = empty(shape, x.value());
  copy_out(y, x.value(), begin, axis);
  return record("slice", y, {x}, [=, x = x.edge()](const Tensor& dy) {
    Tensor dx = zeros(x.shape(), x.options());
    copy_in(dx, dy, begin, axis);
    return Gradients{dx};
  });
}

Var concat(const std::vector<Var>& parts, int64_t axis) {
  check(!parts.empty(), "concat: no parts");
  axis = checked_axis("concat", parts[0], axis);
  Shape shape = parts[0].shape();
  shape[axis] = 0;
  for (const Var& part : parts) {
    Shape expected = parts[0].shape(), found = part.shape();
    check(expected.size() == found.size(), "concat: parts ", expected, " and ", found, " differ in rank");
    shape[axis] += found[axis];
    expected[axis] = found[axis];
    check(expected == found, "concat: parts ", parts[0].shape(), " and ", found, " differ beside axis ", axis);
  }
  Tensor y = empty(shape, parts[0].value());
  int64_t begin = 0;
  for (const Var& part : parts) {
    copy_in(y, part.value(), begin, axis);
    begin += part.dim(axis);
  }
  std::vector<Var> edges;
  for (const Var& part : parts) edges.push_back(part.edge());
  return record("concat", y, parts, [axis, parts = edges](const Tensor& dy) {
    Gradients d(parts.size());
    int64_t begin = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i].needs_grad()) {
        d[i] = empty(parts[i].shape(), parts[i].options());
        copy_out(d[i], dy, begin, axis);
      }
      begin += parts[i].dim(axis);
    }
    return d;
  });
}

Var expand(const Var& x, int64_t axis, int64_t n) {
  axis = checked_axis("expand", x, axis);
  check(x.dim(axis) == 1 && n >= 0, "expand: axis ", axis, " of ", x.shape(), " must have extent 1, new extent is ", n);
  Shape shape = x.shape();
  shape[axis] = n;
  const Split s = split_at(shape, axis);
  Tensor y = empty(shape, x.value());
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::broadcast_axis<T>(dev, y.ptr<T>(), x.value().ptr<T>(), s.outer, s.n, s.inner, 1);
  });
  return record("expand", y, {x}, [=, x = x.edge()](const Tensor& dy) {
    Tensor dx = empty(x.shape(), x.options());
    dispatch(dx, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::sum_axis<T>(dev, dx.ptr<T>(), dy.ptr<T>(), s.outer, s.n, s.inner, 1);
    });
    return Gradients{dx};
  });
}

Var gather_rows(const Var& table, const Tensor& index) {
  check(table.rank() == 2, "gather_rows: table must be [N, D], is ", table.shape());
  Shape shape = index.shape();
  shape.push_back(table.dim(1));
  return gather("gather_rows", table, to(index, {index.dtype(), table.value().device()}), shape, 1, table.dim(0),
                index.numel(), true);
}

Var gather_tokens(const Var& x, const Tensor& index) {
  check(x.rank() == 3 && index.rank() == 2 && index.dim(0) == x.dim(0),
        "gather_tokens: x must be [B, N, D] and index [B, M], are ", x.shape(), " and ", index.shape());
  const int64_t B = x.dim(0), M = index.dim(1);
  return gather("gather_tokens", x, to(index, {index.dtype(), x.value().device()}), {B, M, x.dim(2)}, B, x.dim(1), M,
                false);
}

}  // namespace addp
