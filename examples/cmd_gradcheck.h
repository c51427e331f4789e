// addp gradcheck: float64 gradients against difference quotients, for every op and every model of the tiny preset.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "autograd/var.h"
#include "examples/options.h"

namespace addp {

// An op with small inputs, drawn uniformly from [low, high].
struct OpCase {
  std::string name;
  std::vector<Shape> shapes;
  std::function<Var(std::vector<Var>&)> run;
  double low = -1, high = 1;
};
std::vector<OpCase> op_cases();

// Prints one line per op and model with its worst error, the tensor's name, the index and both values; the last line
// sums up. Returns 0, or 7 when an error exceeds 1e-6.
int cmd_gradcheck(const CommonOptions& options);

}  // namespace addp
