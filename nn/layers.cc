// Constructors of the layers, and dropout as the mode asks for it.
#include "nn/layers.h"

namespace addp {

static bool is_active(const char* name, double p, const Mode& mode) {
  if (!mode.train || p == 0) return false;
  check(mode.rng != nullptr, name, ": training with rate ", p, " needs Mode::rng");
  return true;
}

Var dropout(const Var& x, double p, const Mode& mode) {
  return is_active("dropout", p, mode) ? dropout(x, p, *mode.rng) : x;
}

Var drop_path(const Var& x, double p, const Mode& mode) {
  return is_active("drop_path", p, mode) ? drop_path(x, p, *mode.rng) : x;
}

Linear::Linear(int64_t in, int64_t out, bool with_bias, Options options) : weight(parameter({out, in}, options)) {
  if (with_bias) bias = parameter({out}, options);
}

Conv2d::Conv2d(int64_t in, int64_t out, int64_t kernel, bool with_bias, Options options)
    : Conv2d(in, out, kernel, 1, same_padding(kernel), with_bias, options) {}

Conv2d::Conv2d(int64_t in, int64_t out, int64_t kernel, int64_t stride, Padding padding, bool with_bias,
               Options options)
    : stride(stride), padding(padding), weight(parameter({out, in, kernel, kernel}, options)) {
  if (with_bias) bias = parameter({out}, options);
}

LayerNorm::LayerNorm(int64_t width, double eps, Options options)
    : eps(eps), weight(parameter({width}, options, 1)), bias(parameter({width}, options)) {}

GroupNorm::GroupNorm(int64_t groups, int64_t channels, double eps, Options options)
    : groups(groups), eps(eps), weight(parameter({channels}, options, 1)), bias(parameter({channels}, options)) {
  check(groups > 0 && channels % groups == 0, "group_norm: ", channels, " channels cannot form ", groups, " groups");
}

BatchNorm::BatchNorm(int64_t channels, double eps, double momentum, bool affine, Options options)
    : eps(eps),
      momentum(momentum),
      running_mean(buffer({channels}, options)),
      running_var(buffer({channels}, options, 1)) {
  if (!affine) return;
  weight = parameter({channels}, options, 1);
  bias = parameter({channels}, options);
}

Embedding::Embedding(int64_t rows, int64_t width, Options options) : weight(parameter({rows, width}, options)) {}

}  // namespace addp
