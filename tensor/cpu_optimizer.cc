// Optimizer steps on the CPU: one pass over flat arenas, at the speed of memory.
#include <cmath>

#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {

// In PyTorch's order: m^ / (sqrt(v^) + eps) = m / correction1 / (sqrt(v) / sqrt(correction2) + eps).
template <class T>
void adamw(Cpu, T* p, T* m, T* v, const T* g, int64_t n, const AdamwStep& step) {
  const T beta1 = static_cast<T>(step.beta1), beta2 = static_cast<T>(step.beta2), eps = static_cast<T>(step.eps);
  const T fresh1 = static_cast<T>(1 - step.beta1), fresh2 = static_cast<T>(1 - step.beta2);
  const T keep = static_cast<T>(1 - step.lr * step.decay), size = static_cast<T>(step.lr / step.correction1);
  const T v_scale = static_cast<T>(1 / std::sqrt(step.correction2)), scale = static_cast<T>(step.scale);
  parallel_ranges(n, cpu::kGrain, [&](int64_t begin, int64_t end) {
    T* __restrict pp = p, * __restrict mm = m, * __restrict vv = v;
    const T* __restrict gg = g;
    for (int64_t i = begin; i < end; ++i) {
      const T gradient = gg[i] * scale;
      mm[i] = beta1 * mm[i] + fresh1 * gradient;
      vv[i] = beta2 * vv[i] + fresh2 * gradient * gradient;
      pp[i] = pp[i] * keep - size * mm[i] / (std::sqrt(vv[i]) * v_scale + eps);
    }
  });
}

template <class T>
void momentum(Cpu, T* p, T* mu, const T* g, int64_t n, double lr, double momentum, double decay, double scale) {
  const T rate = static_cast<T>(lr), keep = static_cast<T>(momentum);
  const T pull = static_cast<T>(decay), factor = static_cast<T>(scale);
  parallel_ranges(n, cpu::kGrain, [&](int64_t begin, int64_t end) {
    T* __restrict pp = p, * __restrict mm = mu;
    const T* __restrict gg = g;
    for (int64_t i = begin; i < end; ++i) {
      mm[i] = keep * mm[i] + factor * (gg[i] + pull * pp[i]);
      pp[i] -= rate * mm[i];
    }
  });
}

template void adamw(Cpu, float*, float*, float*, const float*, int64_t, const AdamwStep&);
template void adamw(Cpu, double*, double*, double*, const double*, int64_t, const AdamwStep&);
template void momentum(Cpu, float*, float*, const float*, int64_t, double, double, double, double);
template void momentum(Cpu, double*, double*, const double*, int64_t, double, double, double, double);

}  // namespace addp::kernel
