#include "nn/detection_loss.h"

#include "autograd/ops.h"

namespace addp {

static Var minimum(const Var& a, const Var& b) { return a - relu(a - b); }
static Var maximum(const Var& a, const Var& b) { return a + relu(b - a); }

Var softplus(const Var& x) { return relu(x) + log(exp(-abs(x)) + 1); }

Var sigmoid_cross_entropy(const Var& x, const Tensor& target) {
  check(x.shape() == target.shape(), "sigmoid_cross_entropy: target must be ", x.shape(), ", found ", target.shape());
  return softplus(x) - x * Var(target);  // -t log s(x) - (1 - t) log(1 - s(x)), and log s(x) = x - softplus(x)
}

Var focal_loss(const Var& x, const Tensor& target, double alpha) {
  const Var t(target), p = sigmoid(x);
  // p_t = p for targets 1, 1 - p for targets 0; likewise alpha_t.
  const Var wrong = p + t - 2 * (p * t);  // 1 - p_t
  const Var weight = affine(t, 2 * alpha - 1, 1 - alpha);
  return weight * square(wrong) * sigmoid_cross_entropy(x, target);
}

Var giou_loss(const Var& distances, const Tensor& target) {
  check(distances.rank() == 2 && distances.dim(1) == 4 && distances.shape() == target.shape(),
        "giou_loss: distances and target must be [P, 4], found ", distances.shape(), " and ", target.shape());
  const Var truth(target);
  const auto area = [](const Var& box) {
    const Var size = slice(box, 1, 0, 2) + slice(box, 1, 2, 4);  // [P, 2] width, height
    return slice(size, 1, 0, 1) * slice(size, 1, 1, 2);          // [P, 1]
  };
  const Var both = area(minimum(distances, truth)), hull = area(maximum(distances, truth));
  const Var either = area(distances) + area(truth) - both;
  const Var giou = both / either - (hull - either) / hull;
  return reshape(affine(giou, -1, 1), {distances.dim(0)});
}

}  // namespace addp
