// The straight-through estimator of vector quantization (van den Oord et al. 2017).
#include "autograd/ops.h"

namespace addp {

Var straight_through(const Var& x, const Tensor& quantized) {
  check(quantized.shape() == x.shape(), "straight_through: quantized must be ", x.shape(), ", is ", quantized.shape());
  return record("straight_through", quantized, {x}, [](const Tensor& dy) { return Gradients{dy}; });
}

}  // namespace addp
