// Recognition (Sec. 3.4): the encoder alone, on clean images. Features, the ViT classifier of fine-tuning, and the
// linear probe on frozen features (MAE and MAGE recipe).
#pragma once
#include <string>
#include <vector>

#include "addp/pixel_encoder.h"

namespace addp {

// Mean over the patch tokens of the encoder's last block. image: [B, 3, Hi, Wi] in [0, 1] -> [B, D].
// tokenizer_norm: as in pre-training; off is the official fine-tuning model's way (Quirk).
Tensor recognition_features(const PixelEncoder& encoder, const Tensor& image, bool tokenizer_norm = false);

// The fine-tuning model: patch_embed, class token, + pos_embed, blocks, mean over patch tokens, fc_norm, head.
struct Classifier {
  Classifier(const Config& config, int64_t classes, double drop_path, Options options);

  Var forward_tokens(const Var& image, Mode mode = {}) const;  // normalised pixels -> [B, 1 + L, D], after the blocks
  Var forward(const Var& image, Mode mode = {}) const;         // normalised pixels -> logits [B, classes]

  // A copy of a pre-trained encoder's weights; fc_norm and head stay as they are.
  void load_encoder(const PixelEncoder& encoder);

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "cls_token", cls_token, Role::parameter);
    f(prefix + "pos_embed", pos_embed, Role::parameter);
    patch_embed.visit(prefix + "patch_embed.", f);
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i].visit(prefix + "blocks." + std::to_string(i) + ".", f);
    fc_norm.visit(prefix + "fc_norm.", f);
    head.visit(prefix + "head.", f);
  }

  Var cls_token;  // [1, 1, D]
  Var pos_embed;  // [1, 1 + L, D]
  PatchEmbed patch_embed;
  std::vector<Block> blocks;
  LayerNorm fc_norm;
  Linear head;
};

// BatchNorm without affine map (eps 1e-6), then a linear layer with weights from N(0, 0.01^2).
struct LinearProbe {
  LinearProbe(int64_t width, int64_t classes, Options options);

  Var forward(const Var& features, bool train);  // [B, D] -> logits [B, classes]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "0.running_mean", running_mean, Role::buffer);
    f(prefix + "0.running_var", running_var, Role::buffer);
    head.visit(prefix + "1.", f);
  }

  Var running_mean, running_var;  // [D]
  Linear head;
};

struct ProbeConfig {
  int64_t epochs = 30, batch = 256, warmup_epochs = 3;
  double base_lr = 0.1, momentum = 0.9;  // LARS, no weight decay; effective rate base_lr * batch / 256
};
// Trains on precomputed features [N, D] and labels [N] i64. Deterministic for a given rng.
LinearProbe train_linear_probe(const Tensor& features, const Tensor& labels, int64_t classes, const ProbeConfig& config,
                               Rng& rng);
// Share of right answers in [0, 1].
double probe_accuracy(LinearProbe& probe, const Tensor& features, const Tensor& labels);

}  // namespace addp
