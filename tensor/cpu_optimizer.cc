// Optimizer steps on the CPU: one pass over parameters, moments and gradients, at the speed of memory.
#include <cmath>

#include "tensor/adamw.h"
#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {

using cpu::load;
using cpu::store;

namespace {

constexpr int64_t kStep = 4096;  // elements a task: a step reads and writes several times as much as other kernels

}  // namespace

template <class T>
void adamw(Cpu, T* p, T* m, T* v, const T* g, int64_t n, const AdamwStep& step, const double* schedule,
           const double* norm2) {
  using V = cpu::Vec<T>;
  const AdamwFactors<T> c = adamw_factors<T>(step, schedule, *norm2);
  if (!c.usable) return;
  const T beta1 = c.beta1, beta2 = c.beta2, eps = c.eps, fresh1 = c.fresh1, fresh2 = c.fresh2;
  const T keep = c.keep, size = c.size, v_scale = c.v_scale, scale = c.scale;
  // Constants are captured by value, so that they stay in registers.
  parallel_ranges(n, kStep, [=](int64_t begin, int64_t end) {
    cpu::for_vectors<T>(end - begin, [=](int64_t at, auto lanes) {
      const int64_t i = begin + at;
      cpu::ask_to_read(g + i);
      cpu::ask_to_write(m + i), cpu::ask_to_write(v + i), cpu::ask_to_write(p + i);
      const V gradient = load<T>(g + i, lanes) * scale;
      const V first = beta1 * load<T>(m + i, lanes) + fresh1 * gradient;
      const V second = beta2 * load<T>(v + i, lanes) + fresh2 * gradient * gradient;
      store<T>(m + i, lanes, first);
      store<T>(v + i, lanes, second);
      store<T>(p + i, lanes, load<T>(p + i, lanes) * keep - size * first / (cpu::sqrt(second) * v_scale + eps));
    });
  });
}

template <class T>
void momentum(Cpu, T* p, T* mu, const T* g, int64_t n, double lr, double momentum, double decay, double scale) {
  using V = cpu::Vec<T>;
  const T rate = static_cast<T>(lr), keep = static_cast<T>(momentum);
  const T pull = static_cast<T>(decay), factor = static_cast<T>(scale);
  parallel_ranges(n, kStep, [=](int64_t begin, int64_t end) {
    cpu::for_vectors<T>(end - begin, [=](int64_t at, auto lanes) {
      const int64_t i = begin + at;
      const V w = load<T>(p + i, lanes);
      const V moved = keep * load<T>(mu + i, lanes) + factor * (load<T>(g + i, lanes) + pull * w);
      store<T>(mu + i, lanes, moved);
      store<T>(p + i, lanes, w - rate * moved);
    });
  });
}

template void adamw(Cpu, float*, float*, float*, const float*, int64_t, const AdamwStep&, const double*, const double*);
template void adamw(Cpu, double*, double*, double*, const double*, int64_t, const AdamwStep&, const double*,
                    const double*);
template void momentum(Cpu, float*, float*, const float*, int64_t, double, double, double, double);
template void momentum(Cpu, double*, double*, const double*, int64_t, double, double, double, double);

}  // namespace addp::kernel
