#include "addp/dense.h"

namespace addp {

Segmenter::Segmenter(std::unique_ptr<Backbone> given, int64_t classes, int64_t width, const Rng& rng, Options options)
    : OnBackbone(std::move(given), options, [&](const Backbone& b) {
        return SegmentationHead(b.width, width, b.image_size / b.grid, classes, rng.fork("head"), options);
      }) {}

Var Segmenter::operator()(const Var& image, const Mode& mode) const { return head(token_map(image, mode)); }

Detector::Detector(std::unique_ptr<Backbone> given, int64_t classes, int64_t width, const Rng& rng, Options options)
    : OnBackbone(std::move(given), options, [&](const Backbone& b) {
        const FcosConfig config = {.image_size = b.image_size,
                                   .stride = b.image_size / b.grid,
                                   .in = b.width,
                                   .width = width,
                                   .classes = classes};
        return FcosHead(config, rng.fork("head"), options);
      }) {}

FcosOutput Detector::operator()(const Var& image, const Mode& mode) const { return head(token_map(image, mode)); }

}  // namespace addp
