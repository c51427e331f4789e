// How often classifiers are right.
#pragma once
#include <functional>

#include "data/dataset.h"
#include "examples/results.h"
#include "tensor/tensor.h"

namespace addp {

// In how many places two tensors of codes or labels agree. Both i64, of one size, any device.
int64_t count_equal(const Tensor& a, const Tensor& b);
double share_equal(const Tensor& a, const Tensor& b);  // the same as a share of all, in [0, 1]

// Of a whole data set, without augmentation. classify: images [B, 3, image_size, image_size] in [0, 1] on the CPU ->
// classes [B] i64.
Figures test_accuracy(const Dataset& test, int64_t image_size, const std::function<Tensor(const Tensor&)>& classify);

}  // namespace addp
