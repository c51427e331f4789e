#include "addp/dense.h"

#include "autograd/ops.h"

namespace addp {

Var token_map(const Backbone& backbone, const LayerNorm& norm, const Var& image, const Mode& mode) {
  const Var tokens = norm(backbone.patch_tokens(image, mode));
  return reshape(permute(tokens, {0, 2, 1}), {tokens.dim(0), backbone.width, backbone.grid, backbone.grid});
}

Segmenter::Segmenter(std::unique_ptr<Backbone> given, int64_t classes, int64_t width, const Rng& rng, Options options)
    : backbone(std::move(given)),
      norm(backbone->width, 1e-6, options),
      head(backbone->width, width, backbone->image_size / backbone->grid, classes, rng.fork("head"), options) {}

Var Segmenter::operator()(const Var& image, const Mode& mode) const {
  return head(token_map(*backbone, norm, image, mode));
}

Detector::Detector(std::unique_ptr<Backbone> given, int64_t classes, int64_t width, const Rng& rng, Options options)
    : backbone(std::move(given)),
      norm(backbone->width, 1e-6, options),
      head({.image_size = backbone->image_size,
            .stride = backbone->image_size / backbone->grid,
            .in = backbone->width,
            .width = width,
            .classes = classes},
           rng.fork("head"), options) {}

FcosOutput Detector::operator()(const Var& image, const Mode& mode) const {
  return head(token_map(*backbone, norm, image, mode));
}

}  // namespace addp
