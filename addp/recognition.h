// Recognition (Sec. 3.4): the encoder alone, on clean images. Features, the ViT classifier of fine-tuning, and the
// linear probe on frozen features (MAE and MAGE recipe).
#pragma once
#include <string>

#include "addp/pixel_encoder.h"
#include "addp/token_predictor.h"
#include "nn/vit.h"

namespace addp {

// Tokens averaged in cells x cells parts of the image, one part after another in raster order: with more than one cell
// it keeps where things are. tokens: [B, L, D], a square grid that cells divides -> [B, cells^2 D]
Tensor average_cells(const Tensor& tokens, int64_t cells);

// MAGE's representation: what the token predictor's encoder, given all tokens of an image, says at each place, before
// its last norm. codes: [B, L] -> [B, L, D]
Tensor token_features(const TokenPredictor& predictor, const Tensor& codes);

// Mean over the patch tokens of the encoder's last block. image: [B, 3, Hi, Wi] in [0, 1] -> [B, D].
// tokenizer_norm: as in pre-training; off is the official fine-tuning model's way (Quirk).
Tensor recognition_features(const PixelEncoder& encoder, const Tensor& image, bool tokenizer_norm = false);

// The same in cells x cells parts of the image (average_cells), as dense tasks need. -> [B, cells^2 D]
Tensor grid_features(const PixelEncoder& encoder, const Tensor& image, int64_t cells, bool tokenizer_norm = false);

// The fine-tuning model is nn/vit.h's VisionTransformer. Its sizes for an encoder of `config`, and its start from a
// pre-trained encoder: class token, positions, patch embedding and blocks are copied, fc_norm and head stay as they
// are.
VitConfig classifier_config(const Config& config, int64_t classes, double drop_path = 0);
void start_from_encoder(VisionTransformer& classifier, const PixelEncoder& encoder);

// BatchNorm without affine map (eps 1e-6), then a linear layer with weights from N(0, 0.01^2).
struct LinearProbe {
  LinearProbe(int64_t width, int64_t classes, Options options);

  Var forward(const Var& features, bool train) const;  // [B, D] -> logits [B, classes]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    norm.visit(prefix + "0.", f);
    head.visit(prefix + "1.", f);
  }

  BatchNorm norm;
  Linear head;
};

// Trains a probe on precomputed features [N, D] and labels [N] i64 in [0, classes) with LARS (momentum 0.9, no weight
// decay) over random batches with config's steps, batch, warm-up and learning rate. Deterministic for a given rng.
LinearProbe train_linear_probe(const Tensor& features, const Tensor& labels, int64_t classes, const StageConfig& config,
                               Rng rng);
// Share of right answers in [0, 1].
double probe_accuracy(const LinearProbe& probe, const Tensor& features, const Tensor& labels);

}  // namespace addp
