// Dropout and drop path. The backward pass draws the same numbers again, so no mask is kept.
#include "autograd/ops.h"
#include "tensor/dispatch.h"

namespace addp {
namespace {

// One draw per `group` consecutive elements; `rng` moves on by as many.
Var drop(const char* op, const Var& x, int64_t group, double p, Rng& rng) {
  check(p >= 0 && p <= 1, op, ": p must be in [0, 1], is ", p);
  if (p == 0 || x.numel() == 0) return x;
  const Rng draws = rng;
  rng = Rng(rng.seed(), rng.stream(), rng.position() + static_cast<uint64_t>(x.numel() / group));
  const auto apply = [=](const Tensor& from) {
    Tensor to = empty_like(from);
    dispatch(to, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::dropout<T>(dev, to.ptr<T>(), from.ptr<T>(), from.numel(), group, p, draws.seed(), draws.stream(),
                         draws.position());
    });
    return to;
  };
  return record(op, apply(x.value()), {x}, [=](const Tensor& dy) { return Gradients{apply(dy)}; });
}

}  // namespace

Var dropout(const Var& x, double p, Rng& rng) { return drop("dropout", x, 1, p, rng); }

Var drop_path(const Var& x, double p, Rng& rng) {
  check(x.rank() >= 1, "drop_path: x must be [B, ...], is ", x.shape());
  return drop("drop_path", x, x.dim(0) ? x.numel() / x.dim(0) : 1, p, rng);
}

}  // namespace addp
