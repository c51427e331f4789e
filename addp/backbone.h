// What recognition needs of a pre-trained network (Sec. 3.4): patch tokens of a clean image. Classifier, segmenter and
// detector stand on this interface alone, so any system that can give tokens on a grid can carry them; ADDP's pixel
// encoder is one.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "addp/pixel_encoder.h"

namespace addp {

using TensorVisitor = std::function<void(const std::string& name, Var& var, Role role)>;

class Backbone {
 public:
  virtual ~Backbone() = default;

  // image: [B, 3, Hi, Wi] in [0, 1], Hi = Wi = image_size -> patch tokens [B, L, D] in raster order, L = grid^2; no
  // class token, not normalised.
  virtual Var patch_tokens(const Var& image, const Mode& mode = {}) const = 0;
  virtual void visit_tensors(const std::string& prefix, const TensorVisitor& f) = 0;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    visit_tensors(prefix, [&f](const std::string& name, Var& var, Role role) { f(name, var, role); });
  }

  int64_t image_size = 0, grid = 0, width = 0, depth = 0;  // grid: tokens along one side; width: D
};

struct BackboneOptions {
  int64_t image_size = 0;      // 0: the configuration's
  double drop_path = 0;        // rate of the last block; it rises linearly from 0 at the first
  bool tokenizer_norm = true;  // as in pre-training; off: the official fine-tuning model, a plain ViT (Quirk)
};

// E without its last norm.
class EncoderBackbone : public Backbone {
 public:
  // With the starting values of a ViT that is trained from scratch.
  EncoderBackbone(Config config, const BackboneOptions& backbone, const Rng& rng, Options options);

  // Takes over a pre-trained encoder's tensors; positions are resized where its grid is another one.
  // Throws Error(checkpoint) when widths or depths differ.
  void start_from(const PixelEncoder& pretrained);
  void start_from(const EncoderBackbone& pretrained) { start_from(pretrained.encoder_); }

  Var patch_tokens(const Var& image, const Mode& mode) const override;
  void visit_tensors(const std::string& prefix, const TensorVisitor& f) override;

 private:
  PixelEncoder encoder_;
  bool tokenizer_norm_;
};

// A task's model: a backbone, a norm over its patch tokens, a head. Tensors of the head are called head.*.
template <class Head>
struct OnBackbone {
  // make_head: const Backbone& -> Head
  template <class MakeHead>
  OnBackbone(std::unique_ptr<Backbone> given, Options options, MakeHead&& make_head)
      : backbone(std::move(given)), fc_norm(backbone->width, 1e-6, options), head(make_head(*backbone)) {}

  // Normalised patch tokens as a map [B, D, grid, grid].
  Var token_map(const Var& image, const Mode& mode) const {
    const Var x = fc_norm(backbone->patch_tokens(image, mode));
    return reshape(permute(x, {0, 2, 1}), {x.dim(0), backbone->width, backbone->grid, backbone->grid});
  }

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    backbone->visit(prefix, f);
    fc_norm.visit(prefix + "fc_norm.", f);
    head.visit(prefix + "head.", f);
  }

  std::unique_ptr<Backbone> backbone;
  LayerNorm fc_norm;
  Head head;
};

// Position table of a ViT for another grid: the class token's row stays, the others are a picture of from x from pixels
// that is resized to `to` x `to`, bicubic as torch.nn.functional.interpolate(align_corners=False).
// positions: [1, 1 + from^2, D] -> [1, 1 + to^2, D]
Tensor resize_positions(const Tensor& positions, int64_t to);
Tensor resize_grid_positions(const Tensor& positions, int64_t to);  // no class token: [1, from^2, D] -> [1, to^2, D]

}  // namespace addp
