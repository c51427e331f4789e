// Optimizer steps on the device: one pass over flat arenas, at the speed of memory.
#include "cuda/reduce.cuh"
#include "tensor/adamw.h"

namespace addp::kernel {
namespace {

// The factors of a step, worked out once instead of in every thread: they need double precision.
template <class T>
__global__ __launch_bounds__(1) void adamw_factors_kernel(AdamwFactors<T>* factors, AdamwStep step,
                                                          const double* schedule, const double* norm2) {
  ADDP_MAX_THREADS(1);
  *factors = adamw_factors<T>(step, schedule, *norm2);
}

template <class T>
__global__ __launch_bounds__(kBlock, kResident) void adamw_kernel(T* p, T* m, T* v, const T* g, int64_t n,
                                                                  const AdamwFactors<T>* factors, bool packed) {
  ADDP_MAX_THREADS(kBlock);
  const AdamwFactors<T> c = *factors;
  if (!c.usable) return;
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
void adamw(Cuda dev, T* p, T* m, T* v, const T* g, int64_t n, const AdamwStep& step, const double* schedule,
           const double* norm2) {
  if (n == 0) return;
  const Scratch scratch(dev, sizeof(AdamwFactors<T>));
  auto* factors = scratch.as<AdamwFactors<T>>();
  launch(adamw_factors_kernel<T>, Dims{1, 1, 0, dev.stream}, factors, step, schedule, norm2);
  const bool packed = aligned(p, m, v, g);
  launch(adamw_kernel<T>, pack_dims<T>(dev, n, packed), p, m, v, g, n, factors, packed);
}

template <class T>
void momentum(Cuda dev, T* p, T* mu, const T* g, int64_t n, double lr, double momentum, double decay, double scale) {
  if (n == 0) return;
  const bool packed = aligned(p, mu, g);
  launch(momentum_kernel<T>, pack_dims<T>(dev, n, packed), p, mu, g, n, static_cast<T>(lr), static_cast<T>(momentum),
         static_cast<T>(decay), static_cast<T>(scale), packed);
}

template void adamw(Cuda, float*, float*, float*, const float*, int64_t, const AdamwStep&, const double*,
                    const double*);
template void adamw(Cuda, double*, double*, double*, const double*, int64_t, const AdamwStep&, const double*,
                    const double*);
template void momentum(Cuda, float*, float*, const float*, int64_t, double, double, double, double);
template void momentum(Cuda, double*, double*, const double*, int64_t, double, double, double, double);

}  // namespace addp::kernel
