// The vision transformer for recognition (ADDP.md "Recognition"; the official fine-tuning model): no tokenizer_norm,
// mean over the patch tokens, fc_norm, head.
#pragma once
#include <string>
#include <vector>

#include "nn/transformer.h"

namespace addp {

struct VitConfig {
  int64_t image_size = 32, patch_size = 4, channels = 3;
  int64_t width = 128, depth = 4, heads = 4;
  double mlp_ratio = 4;
  bool recompute_mlp = false;  // Mlp::recompute
  int64_t classes = 10;
  double drop_path = 0;  // rate of the last block; it rises linearly from 0 at the first

  int64_t tokens() const { return (image_size / patch_size) * (image_size / patch_size); }  // L
};

struct VisionTransformer {
  VisionTransformer(const VitConfig& config, Options options);

  // What the blocks give, class token first, not normalised. image: [B, channels, Hi, Wi], normalised by the caller
  // -> [B, 1 + L, D]
  Var features(const Var& image, const Mode& mode = {}) const;
  Var classify(const Var& features) const;  // [B, 1 + L, D] -> logits [B, classes]
  Var operator()(const Var& image, const Mode& mode = {}) const { return classify(features(image, mode)); }

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "cls_token", cls_token, Role::parameter);
    f(prefix + "pos_embed", pos_embed, Role::parameter);
    patch_embed.visit(prefix + "patch_embed.", f);
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i].visit(prefix + "blocks." + std::to_string(i) + ".", f);
    fc_norm.visit(prefix + "fc_norm.", f);
    head.visit(prefix + "head.", f);
  }

  VitConfig config;
  Var cls_token;  // [1, 1, D]
  Var pos_embed;  // [1, 1 + L, D], the class token's first
  PatchEmbed patch_embed;
  std::vector<Block> blocks;
  LayerNorm fc_norm;
  Linear head;
};

}  // namespace addp
