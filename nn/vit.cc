// Forward pass of the recognition model.
#include "nn/vit.h"

#include <algorithm>

namespace addp {

VisionTransformer::VisionTransformer(const VitConfig& config, Options options)
    : config(config),
      cls_token(parameter({1, 1, config.width}, options)),
      pos_embed(parameter({1, 1 + config.tokens(), config.width}, options)),
      patch_embed(config.channels, config.width, config.patch_size, options),
      fc_norm(config.width, 1e-6, options),
      head(config.width, config.classes, true, options) {
  for (int64_t i = 0; i < config.depth; ++i) {
    const double rate =
        config.drop_path * static_cast<double>(i) / static_cast<double>(std::max<int64_t>(1, config.depth - 1));
    blocks.emplace_back(config.width, config.heads, config.mlp_ratio, rate, options);
    blocks.back().mlp.recompute = config.recompute_mlp;
  }
}

Var VisionTransformer::features(const Var& image, const Mode& mode) const {
  Var x = concat({expand(cls_token, 0, image.dim(0)), patch_embed(image)}, 1) + pos_embed;
  for (const Block& block : blocks) x = block(x, mode);
  return x;
}

Var VisionTransformer::classify(const Var& features) const {
  return head(fc_norm(mean_axis(slice(features, 1, 1, features.dim(1)), 1)));
}

}  // namespace addp
