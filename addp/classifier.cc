#include "addp/classifier.h"

#include "autograd/ops.h"
#include "nn/init.h"

namespace addp {

Classifier::Classifier(std::unique_ptr<Backbone> backbone, int64_t classes, const Rng& rng, Options options)
    : backbone(std::move(backbone)),
      fc_norm(this->backbone->width, 1e-6, options),
      head(this->backbone->width, classes, true, options) {
  init_normal(head.weight, 0, 0.01, rng.fork("head"));
}

Var Classifier::operator()(const Var& image, const Mode& mode) const {
  return head(fc_norm(mean_axis(backbone->patch_tokens(image, mode), 1)));
}

}  // namespace addp
