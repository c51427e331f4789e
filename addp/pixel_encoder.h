// The pixel encoder E (Sec. 3.1, first half of pixel-to-token generation): a ViT that reads noisy pixels. It is the
// representation that recognition uses (recognition.h).
#pragma once
#include <string>
#include <vector>

#include "addp/config.h"
#include "nn/transformer.h"

namespace addp {

// Clamps to [0, 1] and subtracts ImageNet's channel means, divides by its deviations. image: [B, 3, Hi, Wi].
Var normalize_pixels(const Var& image);

struct PixelEncoder {
  PixelEncoder(const Config& config, Options options);

  // Class token and patches with their positions, not yet normalised. image: [B, 3, Hi, Wi] in [0, 1] -> [B, 1 + L, D].
  Var embed(const Var& image) const;
  // What the blocks read: tokenizer_norm and dropout of embed(). -> [B, 1 + L, D]
  Var encoder_tokens(const Var& image, Mode mode = {}) const;
  // Before the last norm. rows: [B, M] i64, the places that are wanted, all of them where undefined.
  //   tokens: [B, 1 + L, D] -> [B, M, D]
  Var run_blocks(const Var& tokens, Mode mode = {}, const Tensor& rows = {}) const;
  // E(x_t). noisy_image: [B, 3, Hi, Wi] -> [B, M, D], M and rows as above
  Var forward(const Var& noisy_image, Mode mode = {}, const Tensor& rows = {}) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "cls_token", cls_token, Role::parameter);
    f(prefix + "pos_embed", pos_embed, Role::parameter);
    patch_embed.visit(prefix + "patch_embed.", f);
    tokenizer_norm.visit(prefix + "tokenizer_norm.", f);
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i].visit(prefix + "blocks." + std::to_string(i) + ".", f);
    norm.visit(prefix + "norm.", f);
  }

  Var cls_token;  // [1, 1, D]
  Var pos_embed;  // [1, 1 + L, D], the class token's first
  PatchEmbed patch_embed;
  LayerNorm tokenizer_norm;
  std::vector<Block> blocks;
  LayerNorm norm;
  double dropout_rate;
};

}  // namespace addp
