// Grids from tensors; all images of a picture have the same size.
#include "examples/pictures.h"

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "data/image.h"

namespace addp {
namespace {

Tensor first(const Tensor& images, int64_t n) {
  n = std::min(n, images.dim(0));
  Shape shape = images.shape();
  shape[0] = n;
  return images.view(0, shape);
}

Tensor rows(const Tensor& images, int64_t begin, int64_t end) {
  Shape shape = images.shape();
  const int64_t each = images.numel() / std::max<int64_t>(1, shape[0]);
  shape[0] = end - begin;
  return images.view(begin * each, shape);
}

Tensor stack(const std::vector<Tensor>& parts) {
  NoGrad no_grad;
  std::vector<Var> vars;
  for (const Tensor& part : parts) vars.emplace_back(part);
  return concat(vars, 0).value();
}

// A mask [B, L] as images [B, 3, H, W]: each token a square.
Tensor mask_image(const Tensor& mask, int64_t H, int64_t W) {
  const int64_t B = mask.dim(0), L = mask.dim(1), grid = std::llround(std::sqrt(static_cast<double>(L)));
  const std::vector<float> m = to_vector<float>(mask);
  std::vector<float> pixels(B * 3 * H * W);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t y = 0; y < H; ++y) {
        for (int64_t x = 0; x < W; ++x) {
          pixels[((b * 3 + c) * H + y) * W + x] = 0.15f + 0.7f * m[b * L + y * grid / H * grid + x * grid / W];
        }
      }
    }
  }
  return from_vector(pixels, {B, 3, H, W});
}

}  // namespace

std::string grid_png(const Tensor& images, int64_t columns) { return encode_png(image_grid(images, columns, 2)); }

std::string pairs_png(const Tensor& originals, const Tensor& reconstructions, int64_t columns) {
  const int64_t N = originals.dim(0);
  std::vector<Tensor> lines;
  for (int64_t begin = 0; begin < N; begin += columns) {
    const int64_t end = std::min(N, begin + columns);
    if (end - begin < columns && begin > 0) break;  // grids are rectangular
    lines.push_back(rows(originals, begin, end));
    lines.push_back(rows(reconstructions, begin, end));
  }
  return grid_png(stack(lines), std::min(columns, N));
}

void AlternationStrip::add(const SamplerState& state) {
  const Tensor images = to(first(state.image, rows_), {DType::f32, Device::cpu});
  images_.push_back(clone(images));
  masks_.push_back(mask_image(first(to(state.mask, {DType::f32, Device::cpu}), rows_), images.dim(2), images.dim(3)));
}

std::string AlternationStrip::png(const Tensor& final_image) const {
  check(!images_.empty(), "alternation strip: no step was recorded");
  const Tensor last = first(final_image, rows_);
  std::vector<Tensor> cells;
  for (int64_t r = 0; r < last.dim(0); ++r) {
    for (const Tensor& mask : masks_) cells.push_back(rows(mask, r, r + 1));
    cells.push_back(zeros_like(rows(last, r, r + 1)));
    for (const Tensor& image : images_) cells.push_back(rows(image, r, r + 1));
    cells.push_back(rows(last, r, r + 1));
  }
  return grid_png(stack(cells), static_cast<int64_t>(images_.size()) + 1);
}

}  // namespace addp
