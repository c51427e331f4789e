// VQGAN (Esser et al. 2021): images to a grid of codes and back. One code for two layouts: the MAGE/ADDP variant (the
// defaults) and taming-transformers' original (use_taming_layout), told apart by configuration fields alone.
// The codebook's moving-average training is in codebook_ema.h, the adversarial and perceptual losses in
// discriminator.h and lpips.h.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nn/layers.h"

namespace addp {

struct VqganConfig {
  int64_t image_channels = 3;
  int64_t ch = 32;                        // channels of the first level
  std::vector<int64_t> ch_mult{1, 1, 2};  // channels of level i: ch * ch_mult[i]; levels halve the image in between
  int64_t num_res_blocks = 1;             // a level
  int64_t norm_groups = 32;               // of every GroupNorm; must divide all channel counts
  int64_t codebook_size = 256;            // K
  int64_t codebook_dim = 16;              // Dz
  bool shortcut_on_branch = true;         // Quirk: nin_shortcut reads the block's branch instead of its input
  bool conv_bias = false;                 // biases in encoder.conv_in, residual blocks and shortcuts
  bool strided_downsampling = false;      // 3x3 convolution, stride 2, padded right and below; else average pooling
  bool extra_decoder_block = false;       // one residual block more at each level of the decoder
  int64_t latent_kernel = 1;              // of encoder.conv_out
  bool quant_conv = false;                // 1x1 convolutions before and after the quantizer
  int64_t z_channels = 0;                 // between encoder and quant_conv; 0: Dz
  bool mid_attention = false;             // attention between the two middle blocks
  std::vector<int64_t>
      attention_sides{};                 // attention after each residual block where the feature map has this side ...
  int64_t resolution = 256;              // ... given images of this side; counts for attention_sides only
  double beta = 0.25;                    // weight of the commitment term of the codebook loss
  bool legacy_beta = false;              // Quirk: beta is on the codebook term instead
  double pixel_low = 0, pixel_high = 1;  // pixel range that the weights were trained with

  int64_t downsampling() const { return int64_t{1} << (ch_mult.size() - 1); }  // pixels a code covers, each direction
  int64_t latent_channels() const { return z_channels > 0 ? z_channels : codebook_dim; }
  void use_taming_layout();  // every field that tells the original from the MAGE/ADDP variant; sizes stay
  void validate() const;     // throws Error(usage) that names the field

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "image_channels", image_channels);
    f(prefix + "ch", ch);
    f(prefix + "ch_mult", ch_mult);
    f(prefix + "num_res_blocks", num_res_blocks);
    f(prefix + "norm_groups", norm_groups);
    f(prefix + "codebook_size", codebook_size);
    f(prefix + "codebook_dim", codebook_dim);
    f(prefix + "shortcut_on_branch", shortcut_on_branch);
    f(prefix + "conv_bias", conv_bias);
    f(prefix + "strided_downsampling", strided_downsampling);
    f(prefix + "extra_decoder_block", extra_decoder_block);
    f(prefix + "latent_kernel", latent_kernel);
    f(prefix + "quant_conv", quant_conv);
    f(prefix + "z_channels", z_channels);
    f(prefix + "mid_attention", mid_attention);
    f(prefix + "attention_sides", attention_sides);
    f(prefix + "resolution", resolution);
    f(prefix + "beta", beta);
    f(prefix + "legacy_beta", legacy_beta);
    f(prefix + "pixel_low", pixel_low);
    f(prefix + "pixel_high", pixel_high);
  }
};

// GroupNorm, SiLU, 3x3 convolution, twice, and a skip connection.
struct ResnetBlock {
  ResnetBlock(const VqganConfig& config, int64_t in, int64_t out, Options options);

  Var operator()(const Var& x) const;  // [B, in, H, W] -> [B, out, H, W]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    norm1.visit(prefix + "norm1.", f);
    conv1.visit(prefix + "conv1.", f);
    norm2.visit(prefix + "norm2.", f);
    conv2.visit(prefix + "conv2.", f);
    if (nin_shortcut) nin_shortcut->visit(prefix + "nin_shortcut.", f);
  }

  bool shortcut_on_branch;
  GroupNorm norm1;
  Conv2d conv1;
  GroupNorm norm2;
  Conv2d conv2;
  std::optional<Conv2d> nin_shortcut;  // where in != out
};

// Single-head self-attention over the positions of a feature map, 1x1 convolutions as projections.
struct SpatialAttention {
  SpatialAttention(const VqganConfig& config, int64_t channels, Options options);

  Var operator()(const Var& x) const;  // [B, C, H, W] -> [B, C, H, W]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    norm.visit(prefix + "norm.", f);
    q.visit(prefix + "q.", f);
    k.visit(prefix + "k.", f);
    v.visit(prefix + "v.", f);
    proj_out.visit(prefix + "proj_out.", f);
  }

  GroupNorm norm;
  Conv2d q, k, v, proj_out;  // weights [C, C, 1, 1]
};

// Residual blocks of one resolution, each followed by attention where configured, and the change of resolution.
struct VqganLevel {
  template <class F>
  void visit(const std::string& prefix, F&& f) {
    for (size_t i = 0; i < block.size(); ++i) block[i].visit(prefix + "block." + std::to_string(i) + ".", f);
    for (size_t i = 0; i < attn.size(); ++i) attn[i].visit(prefix + "attn." + std::to_string(i) + ".", f);
    if (resample) resample->visit(prefix + resample_name, f);
  }
  Var run_blocks(Var h) const;

  std::vector<ResnetBlock> block;
  std::vector<SpatialAttention> attn;  // as many as blocks, or none
  std::optional<Conv2d> resample;      // the convolution of down- or upsampling
  const char* resample_name = "downsample.conv.";
};

// block_1, attention (where configured), block_2 at the lowest resolution.
struct VqganMiddle {
  VqganMiddle(const VqganConfig& config, int64_t channels, Options options);

  Var operator()(const Var& x) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    block_1.visit(prefix + "block_1.", f);
    if (attn_1) attn_1->visit(prefix + "attn_1.", f);
    block_2.visit(prefix + "block_2.", f);
  }

  ResnetBlock block_1;
  std::optional<SpatialAttention> attn_1;
  ResnetBlock block_2;
};

struct VqganEncoder {
  VqganEncoder(const VqganConfig& config, Options options);

  // [B, channels, Hi, Wi] -> [B, latent_channels, Hi / downsampling, Wi / downsampling]
  Var operator()(const Var& image) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    conv_in.visit(prefix + "conv_in.", f);
    for (size_t i = 0; i < down.size(); ++i) down[i].visit(prefix + "down." + std::to_string(i) + ".", f);
    mid.visit(prefix + "mid.", f);
    norm_out.visit(prefix + "norm_out.", f);
    conv_out.visit(prefix + "conv_out.", f);
  }

  Conv2d conv_in;
  std::vector<VqganLevel> down;
  VqganMiddle mid;
  GroupNorm norm_out;
  Conv2d conv_out;
};

struct VqganDecoder {
  VqganDecoder(const VqganConfig& config, Options options);

  // [B, latent_channels, h, w] -> [B, channels, h * downsampling, w * downsampling]
  Var operator()(const Var& latent) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    conv_in.visit(prefix + "conv_in.", f);
    mid.visit(prefix + "mid.", f);
    for (size_t i = 0; i < up.size(); ++i) up[i].visit(prefix + "up." + std::to_string(i) + ".", f);
    norm_out.visit(prefix + "norm_out.", f);
    conv_out.visit(prefix + "conv_out.", f);
  }

  Conv2d conv_in;
  VqganMiddle mid;
  std::vector<VqganLevel> up;  // by level as in the encoder: up.back() runs first
  GroupNorm norm_out;
  Conv2d conv_out;
};

struct Quantized {
  Var z_q;            // [B, Dz, h, w], the codes' embeddings; gradients pass to z unchanged (straight-through)
  Tensor codes;       // [B, L] i64, L = h w, raster order
  Var codebook_loss;  // [], pulls codes to the encoder's output and the output to its codes
};

constexpr double kUnitEps = 1e-6;  // added to lengths that vectors are divided by

// Nearest code by squared distance.
struct VectorQuantizer {
  VectorQuantizer(const VqganConfig& config, Options options);

  Quantized operator()(const Var& z) const;  // z: [B, Dz, h, w]
  Tensor codes(const Var& z) const;          // z: [B, Dz, h, w] -> [B, L]
  Var embed(const Tensor& codes) const;      // [B, L] -> [B, L, Dz]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    embedding.visit(prefix + "embedding.", f);
  }

  double beta;
  bool legacy_beta;
  bool unit_codes = false;  // codes are used at length 1, whatever the codebook's rows are; z must be of length 1
  Embedding embedding;      // the codebook, [K, Dz]
};

// Whatever pixel range the weights want, images here are in [0, 1]; decode may leave it a little (not clamped).
struct Vqgan {
  Vqgan(const VqganConfig& config, Options options);

  Var encode(const Var& image) const;  // [B, C, Hi, Wi] -> h [B, Dz, h, w], what the quantizer reads
  Quantized quantize(const Var& h) const { return quantizer(h); }
  Var decode(const Var& z_q) const;  // [B, Dz, h, w] -> [B, C, Hi, Wi]

  const Var& codebook() const { return quantizer.embedding.weight; }                 // [K, Dz]
  Tensor encode_codes(const Var& image) const;                                       // [B, C, Hi, Wi] -> [B, L]
  Var embed_codes(const Tensor& codes) const { return quantizer.embedding(codes); }  // [B, L] -> [B, L, Dz]
  const Var& last_weight() const { return decoder.conv_out.weight; }  // what the adversarial loss is balanced at
  // Embeddings of a grid in raster order. tokens: [B, h * w, Dz] -> image. rows: h; 0: a square grid.
  Var decode_tokens(const Var& tokens, int64_t rows = 0) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    encoder.visit(prefix + "encoder.", f);
    decoder.visit(prefix + "decoder.", f);
    quantizer.visit(prefix + "quantize.", f);
    if (quant_conv) quant_conv->visit(prefix + "quant_conv.", f);
    if (post_quant_conv) post_quant_conv->visit(prefix + "post_quant_conv.", f);
  }

  VqganConfig config;
  VqganEncoder encoder;
  VqganDecoder decoder;
  VectorQuantizer quantizer;
  std::optional<Conv2d> quant_conv, post_quant_conv;
};

}  // namespace addp
