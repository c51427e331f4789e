// Lesson 3: your own differentiable op, here softplus(x) = log(1 + exp(x)), without touching the library.
// In the library an op has five places (README.md, "How an op is added"); this is the same in one file.
// Build and run:  make all && build/03_your_own_op
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "autograd/gradcheck.h"
#include "autograd/ops.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

using namespace addp;

namespace {

// 1. The kernels: plain loops over pointers, a template on the number type, split into fixed ranges (never by the
//    number of threads), so that the result is the same for any number of them.
template <class T>
void softplus_fwd(Cpu, T* y, const T* x, int64_t n) {
  parallel_ranges(n, 16384, [&](int64_t begin, int64_t end) {
    // log(1 + e^x) overflows for large x; max(x, 0) + log1p(e^-|x|) does not.
    for (int64_t i = begin; i < end; ++i) y[i] = std::max(x[i], T(0)) + std::log1p(std::exp(-std::abs(x[i])));
  });
}

// The derivative is sigmoid(x).
template <class T>
void softplus_bwd(Cpu, T* dx, const T* dy, const T* x, int64_t n) {
  parallel_ranges(n, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] / (1 + std::exp(-x[i]));
  });
}

// On a GPU the same two loops would be kernels in a .cu file (cuda/elementwise.cu has such ones, docs/cuda.md
// explains).
template <class T>
void softplus_fwd(Cuda, T*, const T*, int64_t) {
  fail(ErrorKind::device, "softplus: this lesson has no CUDA kernels");
}
template <class T>
void softplus_bwd(Cuda, T*, const T*, const T*, int64_t) {
  fail(ErrorKind::device, "softplus: this lesson has no CUDA kernels");
}

// 2. The op: compute the value, then record how a gradient flows back. The closure captures the input and never the
//    output, or the graph would keep itself alive.
Var softplus(const Var& x) {
  Tensor y = empty_like(x.value());
  dispatch(y, [&](auto device, auto t) {
    using T = decltype(t);
    softplus_fwd<T>(device, y.ptr<T>(), x.value().ptr<T>(), y.numel());
  });
  return record("softplus", y, {x}, [x](const Tensor& dy) {
    Tensor dx = empty_like(dy);
    dispatch(dx, [&](auto device, auto t) {
      using T = decltype(t);
      softplus_bwd<T>(device, dx.ptr<T>(), dy.ptr<T>(), x.value().ptr<T>(), dx.numel());
    });
    return Gradients{dx};
  });
}

}  // namespace

int main() {
  // 3. The test: float64 gradients against difference quotients. (In tests/ one line, check_op, does this and more.)
  Rng rng(3);
  Var x(rng.normal({5, 7}, {DType::f64, Device::cpu}), true);
  const GradcheckResult result = gradcheck([&] { return sum(square(softplus(x))); }, {{"x", x}});
  std::printf("softplus: %lld gradients checked, worst relative error %.1e\n", static_cast<long long>(result.checked),
              result.worst_error);

  // And a value where the naive formula overflows.
  const double large = softplus(Var(full({1}, 1000, {DType::f64, Device::cpu}))).item();
  std::printf("softplus(1000) = %g\n", large);
  return result.worst_error < 1e-6 && large == 1000 ? 0 : 1;
}
