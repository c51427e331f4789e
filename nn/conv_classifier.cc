#include "nn/conv_classifier.h"

#include "nn/init.h"

namespace addp {

ConvClassifier::ConvClassifier(const ConvClassifierConfig& config, int64_t classes, Options options)
    : head(config.features(), classes, true, options) {
  constexpr int64_t kGroups = 8;
  const auto add = [&](int64_t in, int64_t out, int64_t stride) {
    convs.emplace_back(in, out, 3, stride, same_padding(3), false, options);
    norms.emplace_back(kGroups, out, 1e-5, options);
  };
  add(3, config.width, 1);
  for (int64_t s = 0; s < config.stages; ++s) add(config.width << s, config.width << (s + 1), 2);
  add(config.features(), config.features(), 1);
}

ConvClassifier::Output ConvClassifier::operator()(const Var& image) const {
  Var x = affine(image, 2, -1);
  for (size_t i = 0; i < convs.size(); ++i) x = norms[i].then_silu(convs[i](x));
  const Var features = mean_axis(reshape(x, {x.dim(0), x.dim(1), -1}), 2);
  return {features, head(features)};
}

void initialize(ConvClassifier& model, const Rng& rng) {
  for (const NamedVar& p : parameters(model)) {
    if (p.var.rank() > 1) init_torch_default(p.var, p.var.numel() / p.var.dim(0), rng.fork(p.name));
  }
  init_torch_default(model.head.bias, model.head.weight.dim(1), rng.fork("head.bias"));
}

}  // namespace addp
