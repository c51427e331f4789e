// Optimizer steps on the device: one pass over flat arenas, at the speed of memory.
#include <cmath>

#include "cuda/reduce.cuh"

namespace addp::kernel {
namespace {

// AdamW's step in PyTorch's order: m^ / (sqrt(v^) + eps) = m / correction1 / (sqrt(v) / sqrt(correction2) + eps).
template <class T>
struct AdamwFactors {
  T beta1, beta2, eps;
  T fresh1, fresh2;  // 1 - beta
  T keep, size;      // of the parameter; of the step
  T v_scale, scale;
};

template <class T>
__global__ __launch_bounds__(kBlock, kResident) void adamw_kernel(T* p, T* m, T* v, const T* g, int64_t n,
                                                                  AdamwFactors<T> c, bool packed) {
  ADDP_MAX_THREADS(kBlock);
  for_packs<T>(n, packed, thread_index(), thread_count(), [&]<int W>(int64_t i, Width<W> width) {
    const Pack<T, W> gradients = load(g + i, width);
    Pack<T, W> weight = load(p + i, width), first = load(m + i, width), second = load(v + i, width);
    for (int k = 0; k < W; ++k) {
      const T gradient = gradients[k] * c.scale;
      first[k] = c.beta1 * first[k] + c.fresh1 * gradient;
      second[k] = c.beta2 * second[k] + c.fresh2 * gradient * gradient;
      weight[k] = weight[k] * c.keep - c.size * first[k] / (sqrt(second[k]) * c.v_scale + c.eps);
    }
    store(m + i, first);
    store(v + i, second);
    store(p + i, weight);
  });
}

template <class T>
__global__ __launch_bounds__(kBlock, kResident) void momentum_kernel(T* p, T* mu, const T* g, int64_t n, T rate, T keep,
                                                                     T pull, T scale, bool packed) {
  ADDP_MAX_THREADS(kBlock);
  for_packs<T>(n, packed, thread_index(), thread_count(), [&]<int W>(int64_t i, Width<W> width) {
    const Pack<T, W> gradient = load(g + i, width);
    Pack<T, W> weight = load(p + i, width), moved = load(mu + i, width);
    for (int k = 0; k < W; ++k) {
      moved[k] = keep * moved[k] + scale * (gradient[k] + pull * weight[k]);
      weight[k] -= rate * moved[k];
    }
    store(mu + i, moved);
    store(p + i, weight);
  });
}

}  // namespace

template <class T>
void adamw(Cuda dev, T* p, T* m, T* v, const T* g, int64_t n, const AdamwStep& step) {
  if (n == 0) return;
  AdamwFactors<T> c;
  c.beta1 = static_cast<T>(step.beta1), c.beta2 = static_cast<T>(step.beta2), c.eps = static_cast<T>(step.eps);
  c.fresh1 = static_cast<T>(1 - step.beta1), c.fresh2 = static_cast<T>(1 - step.beta2);
  c.keep = static_cast<T>(1 - step.lr * step.decay), c.size = static_cast<T>(step.lr / step.correction1);
  c.v_scale = static_cast<T>(1 / std::sqrt(step.correction2)), c.scale = static_cast<T>(step.scale);
  const bool packed = aligned(p, m, v, g);
  launch(adamw_kernel<T>, pack_dims<T>(dev, n, packed), p, m, v, g, n, c, packed);
}

template <class T>
void momentum(Cuda dev, T* p, T* mu, const T* g, int64_t n, double lr, double momentum, double decay, double scale) {
  if (n == 0) return;
  const bool packed = aligned(p, mu, g);
  launch(momentum_kernel<T>, pack_dims<T>(dev, n, packed), p, mu, g, n, static_cast<T>(lr), static_cast<T>(momentum),
         static_cast<T>(decay), static_cast<T>(scale), packed);
}

template void adamw(Cuda, float*, float*, float*, const float*, int64_t, const AdamwStep&);
template void adamw(Cuda, double*, double*, double*, const double*, int64_t, const AdamwStep&);
template void momentum(Cuda, float*, float*, const float*, int64_t, double, double, double, double);
template void momentum(Cuda, double*, double*, const double*, int64_t, double, double, double, double);

}  // namespace addp::kernel
