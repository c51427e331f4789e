#include "addp/masking.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "autograd/codes.h"
#include "autograd/ops.h"

namespace addp {

MaskRatios mask_ratios(const MaskingConfig& config) {
  MaskRatios table;
  for (int64_t i = config.steps; i >= 0; --i) {
    const double ratio = std::cos(std::numbers::pi / 2 * static_cast<double>(i) / static_cast<double>(config.steps));
    if (ratio < config.min_ratio || ratio >= config.max_ratio) continue;
    const double z = (ratio - config.mean) / config.deviation;
    table.ratio.push_back(ratio);
    table.probability.push_back(std::exp(-z * z / 2));
  }
  check_as(ErrorKind::usage, !table.ratio.empty(), "masking: no ratio of cos(pi/2 i/", config.steps, ") lies in [",
           config.min_ratio, ", ", config.max_ratio, ")");
  double sum = 0;
  for (double p : table.probability) sum += p;
  for (double& p : table.probability) p /= sum;
  return table;
}

int64_t masked_count(int64_t tokens, double ratio) {
  const auto count = static_cast<int64_t>(std::ceil(static_cast<double>(tokens) * ratio));
  return std::clamp<int64_t>(count, 0, tokens);
}

double truncated_normal(double mean, double deviation, double low, double high, Rng& rng) {
  const auto cdf = [&](double x) { return std::erfc((mean - x) / (deviation * std::numbers::sqrt2)) / 2; };
  const double target = cdf(low) + rng.uniform() * (cdf(high) - cdf(low));
  // Bisection: the interval is a few deviations wide, so 60 halvings reach the last bit.
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (cdf(middle) < target ? low : high) = middle;
  }
  return (low + high) / 2;
}

static size_t draw_index(const std::vector<double>& probability, Rng& rng) {
  double rest = rng.uniform();
  for (size_t i = 0; i + 1 < probability.size(); ++i) {
    rest -= probability[i];
    if (rest < 0) return i;
  }
  return probability.size() - 1;
}

NestedMasks draw_nested_masks(int64_t B, int64_t L, const MaskingConfig& config, Rng& rng, Options options) {
  const MaskRatios table = mask_ratios(config);
  const size_t i = draw_index(table.probability, rng);
  const size_t j = std::min(i + 1 + static_cast<size_t>(rng.below(config.max_jump)), table.ratio.size() - 1);
  const Tensor noise = rng.uniform({B, L}, {options.dtype, Device::cpu});
  const auto smallest = [&](double ratio) {
    return smallest_mask(noise, std::vector<int64_t>(static_cast<size_t>(B), masked_count(L, ratio)));
  };
  return {smallest(table.ratio[i]), smallest(table.ratio[j])};
}

MageMasks draw_mage_masks(int64_t B, int64_t L, const MaskingConfig& config, Rng& rng, Options options) {
  const double rate = truncated_normal(config.mean, config.deviation, config.min_ratio, config.max_ratio, rng);
  const Tensor noise = rng.uniform({B, L}, {options.dtype, Device::cpu});
  const auto smallest = [&](double ratio) {
    return smallest_mask(noise, std::vector<int64_t>(static_cast<size_t>(B), masked_count(L, ratio)));
  };
  return {smallest(rate), smallest(config.min_ratio)};
}

int64_t ones_per_row(const Tensor& mask) {
  const int64_t B = mask.dim(0), L = mask.dim(1);
  const std::vector<double> values = to_vector<double>(mask);
  int64_t expected = -1;
  for (int64_t b = 0; b < B; ++b) {
    int64_t ones = 0;
    for (int64_t l = 0; l < L; ++l) ones += values[static_cast<size_t>(b * L + l)] != 0;
    if (expected < 0) expected = ones;
    check(ones == expected, "mask: every image must have the same number of masked places, image 0 has ", expected,
          ", image ", b, " has ", ones);
  }
  return expected;
}

Tensor places(const Tensor& mask, int value) {
  const int64_t B = mask.dim(0), L = mask.dim(1), ones = ones_per_row(mask);
  const std::vector<double> values = to_vector<double>(mask);
  std::vector<int64_t> index;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t l = 0; l < L; ++l)
      if ((values[static_cast<size_t>(b * L + l)] != 0) == (value != 0)) index.push_back(l);
  return to(from_vector(index, {B, value != 0 ? ones : L - ones}), {DType::i64, mask.device()});
}

Tensor reliable_rows(const Tensor& mask) { return places(with_class_place(mask, 0), 0); }
Tensor unreliable_rows(const Tensor& mask) { return places(with_class_place(mask, 0), 1); }

Tensor rows_of_places(const Tensor& mask, const Tensor& dropped) {
  const int64_t B = mask.dim(0), L = mask.dim(1);
  const std::vector<double> is_masked = to_vector<double>(mask), is_dropped = to_vector<double>(dropped);
  std::vector<int64_t> rows;
  rows.reserve(static_cast<size_t>(B * (1 + L)));
  for (int64_t b = 0; b < B; ++b) {
    rows.push_back(0);
    int64_t kept = 1;
    for (int64_t l = 0; l < L; ++l) {
      const auto i = static_cast<size_t>(b * L + l);
      const int64_t row = is_dropped[i] != 0 ? 0 : kept++;
      rows.push_back(is_masked[i] != 0 ? 0 : row);
    }
  }
  return to(from_vector(rows, {B, 1 + L}), {DType::i64, mask.device()});
}

Tensor at_rows(const Tensor& values, const Tensor& rows) {
  const NoGrad no_grad;
  // Whole numbers up to 2^24 are exact in float32.
  const DType type = values.dtype() == DType::i64 ? DType::f32 : values.dtype();
  const Var column(with_class_place(to(values, {type, values.device()}), 0).reshape({values.dim(0), -1, 1}));
  return to(gather_tokens(column, rows).value().reshape(rows.shape()), values.options());
}

Var spread(const Var& x, const Tensor& mask) {
  check(x.dim(1) > 0, "spread: no place is masked");
  std::vector<int64_t> rows;
  int64_t next = 0;
  for (double masked : to_vector<double>(mask)) {
    if (rows.size() % static_cast<size_t>(mask.dim(1)) == 0) next = 0;
    rows.push_back(masked != 0 ? next++ : 0);
  }
  return gather_tokens(x, from_vector(rows, mask.shape()));
}

Tensor with_class_place(const Tensor& mask, double value) {
  const int64_t B = mask.dim(0);
  return concat({Var(full({B, 1}, value, mask.options())), Var(mask)}, 1).value();
}

}  // namespace addp
