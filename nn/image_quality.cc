#include "nn/image_quality.h"

#include <array>
#include <cmath>
#include <numeric>

#include "tensor/parallel.h"

namespace addp {
namespace {

constexpr int64_t kWindow = 11;

void check_pairs(const char* name, const Tensor& a, const Tensor& b) {
  check_as(ErrorKind::usage, a.rank() == 4 && a.shape() == b.shape() && a.numel() > 0, name,
           ": images must both be [N, C, H, W], found ", a.shape(), " and ", b.shape());
}

std::array<double, kWindow> gaussian_window() {
  constexpr double kSigma = 1.5;
  std::array<double, kWindow> window{};
  for (int64_t i = 0; i < kWindow; ++i) {
    const auto x = static_cast<double>(i - kWindow / 2);
    window[i] = std::exp(-x * x / (2 * kSigma * kSigma));
  }
  const double sum = std::accumulate(window.begin(), window.end(), 0.0);
  for (double& w : window) w /= sum;
  return window;
}

// Weighted means of f(i) over the windows that fit into H x W pixels -> [H - 10, W - 10].
template <class F>
std::vector<double> window_means(int64_t H, int64_t W, const std::array<double, kWindow>& window, F&& f) {
  const int64_t h = H - kWindow + 1, w = W - kWindow + 1;
  std::vector<double> across(static_cast<size_t>(H * w), 0.0), means(static_cast<size_t>(h * w), 0.0);
  for (int64_t y = 0; y < H; ++y)
    for (int64_t x = 0; x < w; ++x)
      for (int64_t k = 0; k < kWindow; ++k) across[y * w + x] += window[k] * f(y * W + x + k);
  for (int64_t y = 0; y < h; ++y)
    for (int64_t k = 0; k < kWindow; ++k)
      for (int64_t x = 0; x < w; ++x) means[y * w + x] += window[k] * across[(y + k) * w + x];
  return means;
}

double ssim_of_plane(const double* a, const double* b, int64_t H, int64_t W) {
  constexpr double kC1 = 0.01 * 0.01, kC2 = 0.03 * 0.03;
  static const std::array<double, kWindow> window = gaussian_window();
  const auto mean_a = window_means(H, W, window, [&](int64_t i) { return a[i]; });
  const auto mean_b = window_means(H, W, window, [&](int64_t i) { return b[i]; });
  const auto aa = window_means(H, W, window, [&](int64_t i) { return a[i] * a[i]; });
  const auto bb = window_means(H, W, window, [&](int64_t i) { return b[i] * b[i]; });
  const auto ab = window_means(H, W, window, [&](int64_t i) { return a[i] * b[i]; });
  double sum = 0;
  for (size_t i = 0; i < ab.size(); ++i) {
    const double means = mean_a[i] * mean_b[i], squares = mean_a[i] * mean_a[i] + mean_b[i] * mean_b[i];
    sum += (2 * means + kC1) * (2 * (ab[i] - means) + kC2) / ((squares + kC1) * (aa[i] + bb[i] - squares + kC2));
  }
  return sum / static_cast<double>(ab.size());
}

}  // namespace

std::vector<double> psnr(const Tensor& images, const Tensor& originals) {
  check_pairs("PSNR", images, originals);
  const std::vector<double> a = to_vector<double>(images), b = to_vector<double>(originals);
  const int64_t N = images.dim(0), size = images.numel() / N;
  std::vector<double> values(static_cast<size_t>(N));
  for (int64_t n = 0; n < N; ++n) {
    double sum = 0;
    for (int64_t i = n * size; i < (n + 1) * size; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
    values[n] = -10 * std::log10(sum / static_cast<double>(size));
  }
  return values;
}

std::vector<double> ssim(const Tensor& images, const Tensor& originals) {
  check_pairs("SSIM", images, originals);
  const int64_t N = images.dim(0), C = images.dim(1), H = images.dim(2), W = images.dim(3);
  check_as(ErrorKind::usage, H >= kWindow && W >= kWindow, "SSIM: sides must be at least ", kWindow, ", images are ",
           images.shape());
  const std::vector<double> a = to_vector<double>(images), b = to_vector<double>(originals);
  std::vector<double> values(static_cast<size_t>(N));
  parallel_for(N, [&](int64_t n) {
    double sum = 0;
    for (int64_t plane = n * C; plane < (n + 1) * C; ++plane)
      sum += ssim_of_plane(&a[plane * H * W], &b[plane * H * W], H, W);
    values[n] = sum / static_cast<double>(C);
  });
  return values;
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace addp
