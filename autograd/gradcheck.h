// Compares reverse-mode gradients with central differences, in float64.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "autograd/var.h"

namespace addp {

struct NamedVar {
  std::string name;
  Var var;
};

struct GradcheckResult {
  double worst_error = 0;  // |analytic - numeric| / max(1e-3, largest |numeric| or |analytic| of that tensor)
  std::string name;        // the tensor with the worst error
  int64_t index = 0;       // flat index in it
  double analytic = 0, numeric = 0;
  int64_t checked = 0;  // elements compared
};

// f: a deterministic scalar function of the variables' present values (float64 leaves that need gradients). At most
// `samples` elements per tensor are compared, spread evenly over it; 0 means all. Values are restored afterwards.
// Difference quotients are of fourth order: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h.
GradcheckResult gradcheck(const std::function<Var()>& f, const std::vector<NamedVar>& variables, int64_t samples = 0,
                          double step = 1e-3);

}  // namespace addp
