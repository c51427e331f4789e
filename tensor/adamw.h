// AdamW's step as the kernels of both backends apply it, in PyTorch's order:
// m^ / (sqrt(v^) + eps) = m / correction1 / (sqrt(v) / sqrt(correction2) + eps).
#pragma once
#include <cmath>

#include "tensor/dispatch.h"
#include "tensor/philox.h"

namespace addp {

template <class T>
struct AdamwFactors {
  T beta1, beta2, eps;
  T fresh1, fresh2;  // 1 - beta
  T keep, size;      // of the parameter; of the step
  T v_scale, scale;  // of the root of v; of the gradient
  bool usable;       // the gradients are finite
};

// schedule, norm2: see kernel::adamw.
template <class T>
ADDP_HOST_DEVICE AdamwFactors<T> adamw_factors(const kernel::AdamwStep& step, const double* schedule, double norm2) {
  const double lr = schedule[0] * step.lr_scale, norm = std::sqrt(norm2);
  const double scale = step.clip_norm > 0 && norm + 1e-6 > step.clip_norm ? step.clip_norm / (norm + 1e-6) : 1;
  AdamwFactors<T> c;
  c.beta1 = static_cast<T>(step.beta1), c.beta2 = static_cast<T>(step.beta2), c.eps = static_cast<T>(step.eps);
  c.fresh1 = static_cast<T>(1 - step.beta1), c.fresh2 = static_cast<T>(1 - step.beta2);
  c.keep = static_cast<T>(1 - lr * step.decay), c.size = static_cast<T>(lr / schedule[1]);
  c.v_scale = static_cast<T>(1 / std::sqrt(schedule[2])), c.scale = static_cast<T>(scale);
  c.usable = norm2 - norm2 == 0;
  return c;
}

}  // namespace addp
