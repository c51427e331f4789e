#include "addp/classifier.h"

#include "autograd/ops.h"
#include "nn/init.h"

namespace addp {

Classifier::Classifier(std::unique_ptr<Backbone> given, int64_t classes, const Rng& rng, Options options)
    : OnBackbone(std::move(given), options,
                 [&](const Backbone& b) { return Linear(b.width, classes, true, options); }) {
  init_normal(head.weight, 0, 0.01, rng.fork("head"));
}

Var Classifier::operator()(const Var& image, const Mode& mode) const {
  return head(fc_norm(mean_axis(backbone->patch_tokens(image, mode), 1)));
}

}  // namespace addp
