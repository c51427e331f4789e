// The gradient that backward(loss) starts from.
#pragma once
#include "tensor/tensor.h"

namespace addp {

// True for that very tensor, [] holding 1, while the backward pass runs on this thread: a loss that has its gradient
// already need not multiply it, nor ask the device for the factor. False says nothing.
bool is_seed(const Tensor& dy);

}  // namespace addp
