// Numeric against analytic gradients.
#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

namespace addp {

GradcheckResult gradcheck(const std::function<Var()>& f, const std::vector<NamedVar>& variables, int64_t samples,
                          double step) {
  for (NamedVar v : variables) {
    check(v.var.options().dtype == DType::f64, "gradcheck: '", v.name, "' must be f64, is ",
          dtype_name(v.var.options().dtype));
    v.var.clear_grad();
  }
  backward(f());

  NoGrad no_grad;
  GradcheckResult worst;
  for (NamedVar v : variables) {
    const int64_t n = v.var.numel();
    const Tensor grad = v.var.grad().defined() ? v.var.grad() : zeros_like(v.var.value());
    const std::vector<double> analytic = to_vector<double>(grad);
    v.var.clear_grad();
    std::vector<double> values = to_vector<double>(v.var.value());
    const Tensor place = v.var.value();
    const int64_t count = samples > 0 ? std::min(samples, n) : n;
    std::vector<int64_t> index(count);
    std::vector<double> numeric(count);
    double scale = 1e-3;
    for (int64_t i = 0; i < count; ++i) {
      index[i] = count == n ? i : (2 * i + 1) * n / (2 * count);
      const double x = values[index[i]];
      auto at = [&](double shift) {
        values[index[i]] = x + shift;
        copy_into(place, from_vector(values, place.shape()));
        return f().item();
      };
      const double h = step * std::max(1.0, std::abs(x));
      numeric[i] = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
      at(0);
      scale = std::max({scale, std::abs(numeric[i]), std::abs(analytic[index[i]])});
    }
    worst.checked += count;
    for (int64_t i = 0; i < count; ++i) {
      const double error = std::abs(numeric[i] - analytic[index[i]]) / scale;
      if (!(error <= worst.worst_error)) {
        worst.worst_error = std::isnan(error) ? INFINITY : error;
        worst.name = v.name;
        worst.index = index[i];
        worst.analytic = analytic[index[i]];
        worst.numeric = numeric[i];
      }
    }
  }
  return worst;
}

}  // namespace addp
