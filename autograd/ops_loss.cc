// Softmax and the cross entropies, whose gradient is written in the forward pass.
#include "autograd/ops.h"
#include "autograd/seed.h"
#include "tensor/dispatch.h"

namespace addp {

Var softmax(const Var& x) {
  const int64_t D = x.dim(-1), N = D ? x.numel() / D : 0;
  Tensor y = empty_like(x.value());
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::softmax_fwd<T>(dev, y.ptr<T>(), x.value().ptr<T>(), N, D);
  });
  return record("softmax", y, {x}, [=](const Tensor& dy) {
    Tensor dx = empty_like(dy);
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::softmax_bwd<T>(dev, dx.ptr<T>(), dy.ptr<T>(), y.ptr<T>(), N, D);
    });
    return Gradients{dx};
  });
}

Var log_softmax(const Var& x) {
  const int64_t D = x.dim(-1), N = D ? x.numel() / D : 0;
  Tensor y = empty_like(x.value());
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::log_softmax_fwd<T>(dev, y.ptr<T>(), x.value().ptr<T>(), N, D);
  });
  return record("log_softmax", y, {x}, [=](const Tensor& dy) {
    Tensor dx = empty_like(dy);
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::log_softmax_bwd<T>(dev, dx.ptr<T>(), dy.ptr<T>(), y.ptr<T>(), N, D);
    });
    return Gradients{dx};
  });
}

namespace {

Shape without_last(const Shape& shape) { return Shape(shape.begin(), shape.end() - 1); }

// The weights of the rows of logits, 1 where none are given.
Tensor weights_of(const char* op, const Var& logits, const Tensor& row_weight) {
  const Shape rows = without_last(logits.shape());
  if (!row_weight.defined()) return ones(rows, logits.options());
  check(row_weight.shape() == rows, op, ": row_weight must be ", rows, ", is ", row_weight.shape(), "; logits are ",
        logits.shape());
  return to(row_weight, logits.options());
}

// A loss whose gradient is already there.
Var record_loss(const char* op, const Tensor& loss, const Var& logits, const Tensor& dlogits) {
  return record(op, loss, {logits}, [=](const Tensor& dy) {
    if (is_seed(dy)) return Gradients{dlogits};
    Tensor dx = empty_like(dlogits);
    dispatch(dx, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::binary<T>(dev, kernel::Binary::mul, dx.ptr<T>(), dlogits.ptr<T>(), dy.ptr<T>(), dx.numel(), 1);
    });
    return Gradients{dx};
  });
}

// Where the forward pass is to write the gradient: nowhere when none is needed.
Tensor gradient_buffer(const Var& logits) {
  return logits.needs_grad() && grad_enabled() ? empty_like(logits.value()) : Tensor();
}

}  // namespace

Var soft_cross_entropy(const Var& logits, const Tensor& target, const Tensor& row_weight, double smoothing) {
  check(logits.rank() >= 1 && target.rank() == logits.rank() &&
            without_last(target.shape()) == without_last(logits.shape()) && target.dim(-1) <= logits.dim(-1),
        "soft_cross_entropy: target must be [..., K] with the rows of logits and K <= V, is ", target.shape(),
        "; logits are ", logits.shape());
  const int64_t V = logits.dim(-1), K = target.dim(-1), N = V ? logits.numel() / V : 0;
  const Tensor weight = weights_of("soft_cross_entropy", logits, row_weight);
  const Tensor q = to(target, logits.options());
  Tensor loss = empty({}, logits.value()), dlogits = gradient_buffer(logits);
  dispatch(loss, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::soft_cross_entropy<T>(dev, loss.ptr<T>(), dlogits.defined() ? dlogits.ptr<T>() : nullptr,
                                  logits.value().ptr<T>(), q.ptr<T>(), weight.ptr<T>(), N, V, K, smoothing);
  });
  return record_loss("soft_cross_entropy", loss, logits, dlogits);
}

Var cross_entropy(const Var& logits, const Tensor& labels, const Tensor& row_weight, double smoothing) {
  check(logits.rank() >= 1 && labels.shape() == without_last(logits.shape()) && labels.dtype() == DType::i64,
        "cross_entropy: labels must be i64 with one label per row of logits, are ", dtype_name(labels.dtype()), " ",
        labels.shape(), "; logits are ", logits.shape());
  const int64_t V = logits.dim(-1), N = labels.numel();
  const Tensor weight = weights_of("cross_entropy", logits, row_weight);
  const Tensor label = to(labels, {DType::i64, logits.value().device()});
  Tensor loss = empty({}, logits.value()), dlogits = gradient_buffer(logits);
  dispatch(loss, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::cross_entropy<T>(dev, loss.ptr<T>(), dlogits.defined() ? dlogits.ptr<T>() : nullptr,
                             logits.value().ptr<T>(), label.ptr<int64_t>(), weight.ptr<T>(), N, V, smoothing);
  });
  return record_loss("cross_entropy", loss, logits, dlogits);
}

}  // namespace addp
