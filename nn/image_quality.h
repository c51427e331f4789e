// How close images are to their originals, pixel by pixel: PSNR and SSIM, one value an image. Images are [N, C, H, W]
// in [0, 1], f32 or f64, any device; computed in float64.
#pragma once
#include <vector>

#include "tensor/tensor.h"

namespace addp {

// Peak signal-to-noise ratio, -10 log10(mean squared difference), in dB; infinite where nothing differs.
std::vector<double> psnr(const Tensor& images, const Tensor& originals);

// Structural similarity (Wang et al. 2004): a Gaussian window of 11 x 11 pixels (sigma 1.5), K1 = 0.01, K2 = 0.03, the
// mean over all places where the window fits, and over channels. Sides at least 11. 1: equal.
std::vector<double> ssim(const Tensor& images, const Tensor& originals);

double mean_of(const std::vector<double>& values);

}  // namespace addp
