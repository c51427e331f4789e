// InceptionV3 as FID is computed with: the network of TensorFlow's 2015 release under the names of torch-fidelity and
// pytorch-fid, whose average pooling does not count padding and whose last block pools maxima. The weights come from a
// file the user has; without them nothing here can stand in for it. Inference only.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "nn/layers.h"
#include "nn/state_dict.h"

namespace addp {

// Images as an 8-bit picture file holds them: values in [0, 1] become whole numbers in 0..255. Same shape, f32.
Tensor to_eight_bits(const Tensor& images);

// TensorFlow 1's bilinear resizing: output pixel i looks at i * in / out, without the half-pixel shift that others
// have. x: [B, C, H, W] f32 on the CPU -> [B, C, size, size]
Tensor resize_like_tensorflow(const Tensor& x, int64_t size);

struct InceptionV3 {
  explicit InceptionV3(Options options);  // parameters are frozen

  struct Output {
    Tensor features;  // [B, 2048], mean over the last 8 x 8 map: for FID, KID, precision and recall
    Tensor logits;    // [B, 1008] without the bias: for the Inception score
  };
  // images: [B, 3, H, W] in [0, 1], any size and device; rounded to 8 bits and resized to 299 x 299.
  Output operator()(const Tensor& images) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    for (auto& [name, layer] : layers) layer.visit(prefix + name + ".", f);
    fc.visit(prefix + "fc.", f);
  }

  // Convolution without bias, BatchNorm of stored statistics, ReLU.
  struct Layer {
    Layer(int64_t in, int64_t out, int64_t kernel_h, int64_t kernel_w, int64_t stride, Padding padding,
          Options options);
    Var operator()(const Var& x) const { return relu(norm(conv2d(x, weight, {}, stride, padding), false)); }

    template <class F>
    void visit(const std::string& prefix, F&& f) {
      f(prefix + "conv.weight", weight, Role::parameter);
      norm.visit(prefix + "bn.", f);
    }

    int64_t stride;
    Padding padding;
    Var weight;  // [out, in, kernel_h, kernel_w]
    BatchNorm norm;
  };
  std::vector<std::pair<std::string, Layer>> layers;  // "Mixed_5b.branch1x1", in the order of the forward pass
  Linear fc;

 private:
  Var run(const std::string& name, const Var& x) const;
  Var run(const std::string& block, std::initializer_list<const char*> names, Var x) const;
  Var block_a(const std::string& name, const Var& x) const;                    // 35 x 35
  Var block_b(const std::string& name, const Var& x) const;                    // 35 -> 17
  Var block_c(const std::string& name, const Var& x) const;                    // 17 x 17
  Var block_d(const std::string& name, const Var& x) const;                    // 17 -> 8
  Var block_e(const std::string& name, const Var& x, bool max_pooling) const;  // 8 x 8
};

// A .pth file of torch-fidelity or pytorch-fid, or a safetensors file of the same names. Throws Error(checkpoint) that
// says what does not fit.
void load_inception(InceptionV3& model, const std::string& file);

}  // namespace addp
