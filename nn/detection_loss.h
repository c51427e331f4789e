// Losses of detectors, composed of the ops of autograd/ops.h. Targets have no gradient.
#pragma once
#include "autograd/var.h"

namespace addp {

// log(1 + e^x), without overflow.
Var softplus(const Var& x);

// Binary cross entropy of sigmoid(x) against target in [0, 1], element by element. x, target: [...]
Var sigmoid_cross_entropy(const Var& x, const Tensor& target);

// Focal loss (Lin et al. 2017): cross entropy weighted by alpha (1 - p)^gamma for targets 1 and (1 - alpha) p^gamma for
// targets 0, p = sigmoid(x), gamma = 2. x, target: [...] -> [...]
Var focal_loss(const Var& x, const Tensor& target, double alpha = 0.25);

// 1 - GIoU (Rezatofighi et al. 2019) of boxes that are given by their edges' distances from one point inside both.
// distances, target: [P, 4] left, top, right, bottom, all positive -> [P]
Var giou_loss(const Var& distances, const Tensor& target);

}  // namespace addp
