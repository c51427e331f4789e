#include "nn/inception.h"

#include <algorithm>
#include <cmath>

#include "tensor/parallel.h"
#include "tensor/torch_checkpoint.h"

namespace addp {
namespace {

constexpr int64_t kSize = 299;

// Windows of 3 x 3 laid side by side, so that pooling without overlap does what pooling with overlap would. Places
// outside repeat the edge, which a maximum does not notice. x: [B, C, H, W] -> maxima [B, C, Ho, Wo]
Var max_pool_3x3(const Var& x, int64_t stride, int64_t padding) {
  const int64_t B = x.dim(0), C = x.dim(1), H = x.dim(2), W = x.dim(3);
  const auto places = [&](int64_t extent) {  // [B C, 3 out]
    const int64_t out = (extent + 2 * padding - 3) / stride + 1;
    std::vector<int64_t> one;
    for (int64_t i = 0; i < out; ++i)
      for (int64_t k = 0; k < 3; ++k) one.push_back(std::clamp<int64_t>(i * stride + k - padding, 0, extent - 1));
    std::vector<int64_t> all;
    for (int64_t plane = 0; plane < B * C; ++plane) all.insert(all.end(), one.begin(), one.end());
    return to(from_vector(all, {B * C, 3 * out}), {DType::i64, x.options().device});
  };
  const Tensor rows = places(H), columns = places(W);
  const int64_t tall = rows.dim(1), wide = columns.dim(1);
  const Var by_column = permute(gather_tokens(reshape(x, {B * C, H, W}), rows), {0, 2, 1});  // [B C, W, 3 Ho]
  const Var windows = reshape(gather_tokens(by_column, columns), {B, C, wide, tall});
  return permute(max_pool(windows, 3), {0, 1, 3, 2});
}

// Means over the part of each 3 x 3 window that lies inside. Same size.
Var avg_pool_3x3(const Var& x) {
  const int64_t B = x.dim(0), C = x.dim(1), H = x.dim(2), W = x.dim(3);
  const auto inside = [](int64_t i, int64_t extent) { return 3 - (i == 0) - (i == extent - 1); };
  std::vector<double> share(static_cast<size_t>(H * W));
  for (int64_t i = 0; i < H * W; ++i) share[i] = 1.0 / static_cast<double>(inside(i / W, H) * inside(i % W, W));
  const Var sums =
      conv2d(reshape(x, {B * C, 1, H, W}), Var(full({1, 1, 3, 3}, 1, x.options())), {}, 1, same_padding(3));
  return mul(reshape(sums, {B, C, H, W}), Var(to(from_vector(share, {H, W}), x.options())));
}

}  // namespace

Tensor to_eight_bits(const Tensor& images) {
  std::vector<float> x = to_vector<float>(images);
  for (float& v : x) v = std::floor(std::clamp(v, 0.0f, 1.0f) * 255 + 0.5f);
  return from_vector(x, images.shape());
}

Tensor resize_like_tensorflow(const Tensor& x, int64_t size) {
  check(x.rank() == 4 && x.numel() > 0 && x.device() == Device::cpu,
        "resize_like_tensorflow: [B, C, H, W] on the CPU is expected, found ", x.shape());
  const int64_t planes = x.dim(0) * x.dim(1), H = x.dim(2), W = x.dim(3);
  struct Place {
    int64_t low, high;
    float share;  // of high
  };
  const auto places = [size](int64_t extent) {
    const auto scale = static_cast<float>(static_cast<double>(extent) / static_cast<double>(size));
    std::vector<Place> list;
    for (int64_t i = 0; i < size; ++i) {
      const float at = static_cast<float>(i) * scale;
      const auto low = static_cast<int64_t>(at);
      list.push_back({std::min(low, extent - 1), std::min(low + 1, extent - 1), at - static_cast<float>(low)});
    }
    return list;
  };
  const std::vector<Place> rows = places(H), columns = places(W);
  Tensor y = empty({x.dim(0), x.dim(1), size, size}, x);
  parallel_for(planes, [&](int64_t plane) {
    const float* in = x.ptr<float>() + plane * H * W;
    float* out = y.ptr<float>() + plane * size * size;
    for (const Place& row : rows) {
      const float *upper = in + row.low * W, *lower = in + row.high * W;
      for (const Place& c : columns) {
        const float above = upper[c.low] + (upper[c.high] - upper[c.low]) * c.share;
        const float below = lower[c.low] + (lower[c.high] - lower[c.low]) * c.share;
        *out++ = above + (below - above) * row.share;
      }
    }
  });
  return y;
}

InceptionV3::Layer::Layer(int64_t in, int64_t out, int64_t kernel_h, int64_t kernel_w, int64_t stride, Padding padding,
                          Options options)
    : stride(stride),
      padding(padding),
      weight(parameter({out, in, kernel_h, kernel_w}, options)),
      norm(out, 1e-3, 0.1, true, options) {}

InceptionV3::InceptionV3(Options options) : fc(2048, 1008, true, options) {
  // Kernels of stride 1 keep the size, those of stride 2 are not padded.
  const auto add = [&](const std::string& name, int64_t in, int64_t out, int64_t h = 1, int64_t w = 1,
                       int64_t stride = 1) {
    const Padding padding = stride == 1 ? Padding{h / 2, w / 2, h / 2, w / 2} : Padding{};
    layers.emplace_back(name, Layer(in, out, h, w, stride, padding, options));
  };
  const auto add_a = [&](const std::string& block, int64_t in, int64_t pooled) {
    add(block + ".branch1x1", in, 64);
    add(block + ".branch5x5_1", in, 48);
    add(block + ".branch5x5_2", 48, 64, 5, 5);
    add(block + ".branch3x3dbl_1", in, 64);
    add(block + ".branch3x3dbl_2", 64, 96, 3, 3);
    add(block + ".branch3x3dbl_3", 96, 96, 3, 3);
    add(block + ".branch_pool", in, pooled);
  };
  const auto add_c = [&](const std::string& block, int64_t inner) {
    add(block + ".branch1x1", 768, 192);
    add(block + ".branch7x7_1", 768, inner);
    add(block + ".branch7x7_2", inner, inner, 1, 7);
    add(block + ".branch7x7_3", inner, 192, 7, 1);
    add(block + ".branch7x7dbl_1", 768, inner);
    add(block + ".branch7x7dbl_2", inner, inner, 7, 1);
    add(block + ".branch7x7dbl_3", inner, inner, 1, 7);
    add(block + ".branch7x7dbl_4", inner, inner, 7, 1);
    add(block + ".branch7x7dbl_5", inner, 192, 1, 7);
    add(block + ".branch_pool", 768, 192);
  };
  const auto add_e = [&](const std::string& block, int64_t in) {
    add(block + ".branch1x1", in, 320);
    add(block + ".branch3x3_1", in, 384);
    add(block + ".branch3x3_2a", 384, 384, 1, 3);
    add(block + ".branch3x3_2b", 384, 384, 3, 1);
    add(block + ".branch3x3dbl_1", in, 448);
    add(block + ".branch3x3dbl_2", 448, 384, 3, 3);
    add(block + ".branch3x3dbl_3a", 384, 384, 1, 3);
    add(block + ".branch3x3dbl_3b", 384, 384, 3, 1);
    add(block + ".branch_pool", in, 192);
  };
  add("Conv2d_1a_3x3", 3, 32, 3, 3, 2);
  add("Conv2d_2a_3x3", 32, 32, 3, 3);
  layers.back().second.padding = {};
  add("Conv2d_2b_3x3", 32, 64, 3, 3);
  add("Conv2d_3b_1x1", 64, 80);
  add("Conv2d_4a_3x3", 80, 192, 3, 3);
  layers.back().second.padding = {};
  add_a("Mixed_5b", 192, 32);
  add_a("Mixed_5c", 256, 64);
  add_a("Mixed_5d", 288, 64);
  add("Mixed_6a.branch3x3", 288, 384, 3, 3, 2);
  add("Mixed_6a.branch3x3dbl_1", 288, 64);
  add("Mixed_6a.branch3x3dbl_2", 64, 96, 3, 3);
  add("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3, 2);
  add_c("Mixed_6b", 128);
  add_c("Mixed_6c", 160);
  add_c("Mixed_6d", 160);
  add_c("Mixed_6e", 192);
  add("Mixed_7a.branch3x3_1", 768, 192);
  add("Mixed_7a.branch3x3_2", 192, 320, 3, 3, 2);
  add("Mixed_7a.branch7x7x3_1", 768, 192);
  add("Mixed_7a.branch7x7x3_2", 192, 192, 1, 7);
  add("Mixed_7a.branch7x7x3_3", 192, 192, 7, 1);
  add("Mixed_7a.branch7x7x3_4", 192, 192, 3, 3, 2);
  add_e("Mixed_7b", 1280);
  add_e("Mixed_7c", 2048);
  set_trainable(*this, false);
}

Var InceptionV3::run(const std::string& name, const Var& x) const {
  for (const auto& [own, layer] : layers) {
    if (own == name) return layer(x);
  }
  fail(ErrorKind::runtime, "inception: there is no layer ", name);
}

// Layers one after another.
Var InceptionV3::run(const std::string& block, std::initializer_list<const char*> names, Var x) const {
  for (const char* name : names) x = run(block + "." + name, x);
  return x;
}

Var InceptionV3::block_a(const std::string& b, const Var& x) const {
  return concat(
      {run(b, {"branch1x1"}, x), run(b, {"branch5x5_1", "branch5x5_2"}, x),
       run(b, {"branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"}, x), run(b, {"branch_pool"}, avg_pool_3x3(x))},
      1);
}

Var InceptionV3::block_b(const std::string& b, const Var& x) const {
  return concat({run(b, {"branch3x3"}, x), run(b, {"branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"}, x),
                 max_pool_3x3(x, 2, 0)},
                1);
}

Var InceptionV3::block_c(const std::string& b, const Var& x) const {
  return concat({run(b, {"branch1x1"}, x), run(b, {"branch7x7_1", "branch7x7_2", "branch7x7_3"}, x),
                 run(b, {"branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"}, x),
                 run(b, {"branch_pool"}, avg_pool_3x3(x))},
                1);
}

Var InceptionV3::block_d(const std::string& b, const Var& x) const {
  return concat(
      {run(b, {"branch3x3_1", "branch3x3_2"}, x),
       run(b, {"branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"}, x), max_pool_3x3(x, 2, 0)},
      1);
}

Var InceptionV3::block_e(const std::string& b, const Var& x, bool max_pooling) const {
  const Var narrow = run(b, {"branch3x3_1"}, x), twice = run(b, {"branch3x3dbl_1", "branch3x3dbl_2"}, x);
  return concat({run(b, {"branch1x1"}, x), run(b, {"branch3x3_2a"}, narrow), run(b, {"branch3x3_2b"}, narrow),
                 run(b, {"branch3x3dbl_3a"}, twice), run(b, {"branch3x3dbl_3b"}, twice),
                 run(b, {"branch_pool"}, max_pooling ? max_pool_3x3(x, 1, 1) : avg_pool_3x3(x))},
                1);
}

InceptionV3::Output InceptionV3::operator()(const Tensor& images) const {
  check(images.rank() == 4 && images.dim(1) == 3 && images.numel() > 0,
        "inception: images must be [B, 3, H, W], found ", images.shape());
  const NoGrad no_grad;
  const Tensor resized = resize_like_tensorflow(to_eight_bits(images), kSize);
  Var x = affine(Var(to(resized, fc.weight.options())), 1.0 / 128, -1);
  x = run("Conv2d_2b_3x3", run("Conv2d_2a_3x3", run("Conv2d_1a_3x3", x)));
  x = max_pool_3x3(x, 2, 0);
  x = max_pool_3x3(run("Conv2d_4a_3x3", run("Conv2d_3b_1x1", x)), 2, 0);
  for (const char* name : {"Mixed_5b", "Mixed_5c", "Mixed_5d"}) x = block_a(name, x);
  x = block_b("Mixed_6a", x);
  for (const char* name : {"Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"}) x = block_c(name, x);
  x = block_d("Mixed_7a", x);
  x = block_e("Mixed_7c", block_e("Mixed_7b", x, false), true);
  const Var features = mean_axis(reshape(x, {x.dim(0), x.dim(1), -1}), 2);
  return {features.value(), linear(features, fc.weight).value()};
}

void load_inception(InceptionV3& model, const std::string& file) {
  const StateDict state = read_weights(file).tensors;
  const auto head = state.find("fc.weight");
  check_as(ErrorKind::checkpoint, head == state.end() || head->second.dim(0) != 1000, file,
           ": is torchvision's InceptionV3 of 1000 classes; FID is defined by the TensorFlow weights of 1008 "
           "(torch-fidelity's weights-inception-2015-12-05-6726825d.pth)");
  load_state_dict(model, state, {file});
}

}  // namespace addp
