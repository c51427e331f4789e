// Image GPT (Chen et al. 2020): images as sequences of palette colours, told one after another by a causal transformer.
#pragma once
#include <string>

#include "nn/causal_transformer.h"

namespace addp {

// K colours that stand for all others; grey levels where the images are grey.
struct Palette {
  Palette(int64_t colours, Options options);

  // k-means on the images' pixels, ordered from dark to light. images: [B, 3, h, w] in [0, 1].
  void fit(const Tensor& images, Rng& rng);
  Tensor codes(const Tensor& images) const;               // the nearest colours: [B, 3, h, w] -> [B, h w] i64
  Tensor image(const Tensor& codes, int64_t rows) const;  // [B, rows w] -> [B, 3, rows, w]

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "colours", colours, Role::buffer);
  }

  Var colours;  // [K, 3] in [0, 1]
};

struct IgptConfig {
  int64_t image_size = 32;  // Hi = Wi
  int64_t size = 16;        // images are averaged down to size x size; divides image_size
  int64_t colours = 16;     // K

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "size", size);
    f(prefix + "colours", colours);
  }
};

struct Igpt {
  // transformer: V and L are set here.
  Igpt(const IgptConfig& config, CausalConfig transformer, Options options);

  Tensor shrink(const Tensor& images) const;  // [B, 3, Hi, Wi] -> [B, 3, size, size]
  Tensor codes(const Tensor& images) const { return palette.codes(shrink(images)); }  // [B, 3, Hi, Wi] -> [B, L]
  Tensor image(const Tensor& codes) const;  // [B, L] -> [B, 3, Hi, Wi], each pixel a square

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    palette.visit(prefix + "palette.", f);
    transformer.visit(prefix + "transformer.", f);
  }

  IgptConfig config;
  Palette palette;
  CausalTransformer transformer;
};

// Starting values (nn/init.h). The palette waits for fit().
void initialize(CausalTransformer& model, const Rng& rng);
void initialize(Igpt& model, const Rng& rng);

}  // namespace addp
