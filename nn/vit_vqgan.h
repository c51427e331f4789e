// ViT-VQGAN's tokenizer (Yu et al. 2022): a vision transformer on each side of the codes, which are few-dimensional
// ("factorised") and of length 1, so that the nearest code is the one of the largest cosine. Stands wherever
// nn/vqgan.h's Vqgan does. The output layers are plain linear maps, without the paper's tanh layer.
#pragma once
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "nn/vqgan.h"

namespace addp {

struct VitVqganConfig {
  int64_t image_size = 32, patch_size = 4;
  int64_t width = 128, depth = 4, heads = 4, decoder_depth = 4;
  double mlp_ratio = 4;
  int64_t codebook_size = 64;  // K
  int64_t codebook_dim = 8;    // Dz
  double beta = 0.25;          // weight of the commitment term of the codebook loss

  int64_t grid() const { return image_size / patch_size; }

  // Image, patch and codebook size are not among the fields: all tokenizers of a configuration share them.
  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "width", width);
    f(prefix + "depth", depth);
    f(prefix + "heads", heads);
    f(prefix + "decoder_depth", decoder_depth);
    f(prefix + "mlp_ratio", mlp_ratio);
    f(prefix + "codebook_dim", codebook_dim);
    f(prefix + "beta", beta);
  }
};

struct VitVqgan {
  VitVqgan(const VitVqganConfig& config, Options options);

  Var encode(const Var& image) const;  // [B, 3, Hi, Wi] in [0, 1] -> h [B, Dz, h, w], of length 1 along Dz
  Quantized quantize(const Var& h) const { return quantizer(h); }
  Var decode(const Var& z_q) const;  // [B, Dz, h, w] -> [B, 3, Hi, Wi], not clamped

  Tensor encode_codes(const Var& image) const;                                   // [B, 3, Hi, Wi] -> [B, L]
  Var embed_codes(const Tensor& codes) const { return quantizer.embed(codes); }  // [B, L] -> [B, L, Dz]
  Var decode_tokens(const Var& tokens) const;                                    // [B, L, Dz] -> image
  const Var& last_weight() const { return to_pixels.weight; }  // what the adversarial loss is balanced at

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    const auto visit_blocks = [&](const std::string& name, std::vector<Block>& list) {
      for (size_t i = 0; i < list.size(); ++i) list[i].visit(prefix + name + std::to_string(i) + ".", f);
    };
    patch_embed.visit(prefix + "patch_embed.", f);
    f(prefix + "pos_embed", pos_embed, Role::parameter);
    visit_blocks("blocks.", blocks);
    norm.visit(prefix + "norm.", f);
    to_code.visit(prefix + "to_code.", f);
    quantizer.visit(prefix + "quantize.", f);
    from_code.visit(prefix + "from_code.", f);
    f(prefix + "decoder_pos_embed", decoder_pos_embed, Role::parameter);
    visit_blocks("decoder_blocks.", decoder_blocks);
    decoder_norm.visit(prefix + "decoder_norm.", f);
    to_pixels.visit(prefix + "to_pixels.", f);
  }

  VitVqganConfig config;
  PatchEmbed patch_embed;
  Var pos_embed;  // [1, L, D]
  std::vector<Block> blocks;
  LayerNorm norm;
  Linear to_code;  // [Dz, D]
  VectorQuantizer quantizer;
  Linear from_code;       // [D, Dz]
  Var decoder_pos_embed;  // [1, L, D]
  std::vector<Block> decoder_blocks;
  LayerNorm decoder_norm;
  Linear to_pixels;  // [3 p p, D]
};

// Starting values (nn/init.h); positions start as sines and cosines, codes as random directions.
void initialize(VitVqgan& model, const Rng& rng);

}  // namespace addp
