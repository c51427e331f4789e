// The pre-norm transformer block of ViT (Dosovitskiy et al. 2021) under timm's names, and the patch embedding.
#pragma once
#include <string>

#include "nn/layers.h"

namespace addp {

// What causal attention keeps of the places it has read; empty at first.
struct KeyValues {
  Tensor key, value;  // [B H, capacity, Dh], 0 after the first `places`; the capacity grows as needed
  int64_t places = 0;
};

// Multi-head self-attention with biases. Throws when heads does not divide width.
struct Attention {
  Attention(int64_t width, int64_t heads, Options options);

  // rows: [B, M] i64, the places whose output is wanted, all of them where undefined. [B, L, D] -> [B, M, D]
  Var operator()(const Var& x, const Tensor& rows = {}) const;
  // The same for the next place alone, which sees itself and all places before it. x: [B, 1, D] -> [B, 1, D], nothing
  // recorded.
  Var next(const Var& x, KeyValues& past) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    qkv.visit(prefix + "qkv.", f);
    proj.visit(prefix + "proj.", f);
  }

  int64_t heads;
  bool causal = false;  // place i sees places 0..i only
  Linear qkv, proj;     // [3 D, D], [D, D]
};

// fc2(gelu(fc1(x))), exact GELU.
struct Mlp {
  Mlp(int64_t width, int64_t hidden, Options options);

  Var operator()(const Var& x) const;  // [B, L, D] -> [B, L, D]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    fc1.visit(prefix + "fc1.", f);
    fc2.visit(prefix + "fc2.", f);
  }

  bool recompute = false;  // activation checkpointing: fc1's product is not kept but computed again in backward
  Linear fc1, fc2;
};

// x + attn(norm1(x)), then x + mlp(norm2(x)); in training either branch is dropped for a whole sample at rate
// drop_path. LayerNorm eps 1e-6.
struct Block {
  Block(int64_t width, int64_t heads, double mlp_ratio, double drop_path, Options options);

  // rows: [B, M] i64, the places whose output is wanted, all of them where undefined. [B, L, D] -> [B, M, D]
  Var operator()(const Var& x, const Mode& mode = {}, const Tensor& rows = {}) const;
  Var next(const Var& x, KeyValues& past) const;  // Attention::next in the block: [B, 1, D] -> [B, 1, D]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    norm1.visit(prefix + "norm1.", f);
    attn.visit(prefix + "attn.", f);
    norm2.visit(prefix + "norm2.", f);
    mlp.visit(prefix + "mlp.", f);
  }

  double drop_path_rate;
  LayerNorm norm1;
  Attention attn;
  LayerNorm norm2;
  Mlp mlp;
};

// Non-overlapping patches as tokens: a convolution with kernel and stride p, written as one matrix product.
struct PatchEmbed {
  PatchEmbed(int64_t channels, int64_t width, int64_t patch_size, Options options);

  // image: [B, channels, Hi, Wi], both multiples of p -> [B, L, D], raster order
  Var operator()(const Var& image) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    proj.visit(prefix + "proj.", f);
  }

  Conv2d proj;  // weight [D, channels, p, p]
};

}  // namespace addp
