// Lesson 2: automatic differentiation. Fits a line by gradient descent, then looks inside the graph.
// Build and run:  make all && build/02_autograd
#include <cstdio>

#include "autograd/gradcheck.h"
#include "autograd/ops.h"

using namespace addp;

int main() {
  // Data: y = 3 x - 1 with a little noise.
  Rng rng(1);
  const Options f64{DType::f64, Device::cpu};
  const Var x(rng.uniform({64, 1}, f64));
  const Var y = affine(x, 3, -1) + 0.01 * Var(rng.normal({64, 1}, f64));

  // A Var is a tensor plus its place in the graph. Leaves that need a gradient are what we train.
  Var weight(zeros({1, 1}, f64), true), bias(zeros({1}, f64), true);
  auto loss = [&] { return mean(square(linear(x, weight, bias) - y)); };

  for (int step = 0; step < 500; ++step) {
    backward(loss());  // adds d(loss)/d(leaf) to each leaf's grad, and frees the graph as it goes
    for (Var* p : {&weight, &bias}) {
      NoGrad no_grad;  // the update itself is not recorded
      p->set_value((*p - 0.5 * Var(p->grad())).value());
      p->clear_grad();
    }
  }
  std::printf("fitted: y = %.3f x + %.3f\n", weight.item(), bias.item());

  // The gradient of a scalar with respect to any node, leaf or not, without touching any grad: VQGAN balances its two
  // losses this way.
  const Var prediction = linear(x, weight, bias);
  const Tensor g = gradient(mean(square(prediction - y)), prediction);
  std::printf("d(loss)/d(prediction) has shape [%lld, %lld]\n", static_cast<long long>(g.dim(0)),
              static_cast<long long>(g.dim(1)));

  // Is a gradient right? Compare it with difference quotients, in float64.
  const GradcheckResult result = gradcheck(loss, {{"weight", weight}, {"bias", bias}});
  std::printf("worst relative error of the gradients: %.1e\n", result.worst_error);
  const bool fitted = weight.item() > 2.9 && weight.item() < 3.1;
  return fitted && result.worst_error < 1e-6 ? 0 : 1;
}
