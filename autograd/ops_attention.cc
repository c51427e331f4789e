// Fused softmax attention.
#include <cmath>

#include "autograd/ops.h"
#include "tensor/dispatch.h"

namespace addp {

Var attention(const Var& qkv, int64_t heads, bool causal) {
  check(qkv.rank() == 3 && heads >= 1 && qkv.dim(2) > 0 && qkv.dim(2) % (3 * heads) == 0,
        "attention: expected qkv [B, L, 3 D] with D a multiple of heads = ", heads, ", found ", qkv.shape());
  const int64_t B = qkv.dim(0), L = qkv.dim(1), H = heads, Dh = qkv.dim(2) / (3 * heads);
  const double scale = 1 / std::sqrt(static_cast<double>(Dh));
  Tensor o = empty({B, L, H * Dh}, qkv.value()), lse = empty({B, H, L}, qkv.value());
  dispatch(o, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::attention_fwd<T>(dev, o.ptr<T>(), lse.ptr<T>(), qkv.value().ptr<T>(), B, L, H, Dh, scale, causal);
  });
  return record("attention", o, {qkv}, [=](const Tensor& d_o) {
    Tensor dqkv = empty_like(qkv.value());
    dispatch(dqkv, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::attention_bwd<T>(dev, dqkv.ptr<T>(), d_o.ptr<T>(), o.ptr<T>(), lse.ptr<T>(), qkv.value().ptr<T>(), B, L,
                               H, Dh, scale, causal);
    });
    return Gradients{dqkv};
  });
}

}  // namespace addp
