// Which tokens are unreliable (Sec. 3.2): mask ratios and their probabilities, nested masks, and the positions that a
// mask leaves. In every mask 1 = unreliable (masked), 0 = reliable (known); masks are [B, L] in the model's dtype.
// Masks are drawn on the host, which makes indices of them; what computes with one takes it to its own device. Masks on
// a device are welcome everywhere as well, but then the host waits for it.
#pragma once
#include <cstdint>
#include <vector>

#include "addp/config.h"
#include "tensor/random.h"

namespace addp {

// The ratios that training draws from, ascending, and their probabilities (they sum to 1).
struct MaskRatios {
  std::vector<double> ratio;
  std::vector<double> probability;
};
// ratio: cos(pi/2 * i / steps), i = 0..steps, those in [min_ratio, max_ratio). probability: proportional to the normal
// density (mean, deviation) truncated to [min_ratio, max_ratio].
MaskRatios mask_ratios(const MaskingConfig& config);

// ceil(tokens * ratio), in float64 as the official code, within [0, tokens].
int64_t masked_count(int64_t tokens, double ratio);

// A draw from the normal density truncated to [low, high], by inverse CDF.
double truncated_normal(double mean, double deviation, double low, double high, Rng& rng);

// Masks of the alternating process: mask_t is a subset of mask_t_next, the same number of places in every image.
struct NestedMasks {
  Tensor mask_t;       // [B, L]
  Tensor mask_t_next;  // [B, L], one step noisier: masked wherever mask_t is
};
// Ratio i ~ Categorical, j = min(i + U{1..max_jump}, last); one noise draw a place orders them both.
// Of options only the dtype counts.
NestedMasks draw_nested_masks(int64_t B, int64_t L, const MaskingConfig& config, Rng& rng, Options options);

// Masks of MAGE's own training: rate ~ truncated normal for the whole batch, at least the dropped half.
struct MageMasks {
  Tensor mask_all;      // [B, L], 1: to be predicted
  Tensor mask_dropped;  // [B, L], 1: does not enter the encoder; a subset of mask_all, ceil(L * min_ratio) places
};
MageMasks draw_mage_masks(int64_t B, int64_t L, const MaskingConfig& config, Rng& rng, Options options);

// Number of 1s in each row of a mask. Throws unless all rows have the same number.
int64_t ones_per_row(const Tensor& mask);

// Positions where `mask` is `value` (0 or 1), ascending (raster order). mask: [B, L] -> [B, M] i64.
// Throws when rows have different numbers of them.
Tensor places(const Tensor& mask, int value);

// Networks read and predict some places only. Of a sequence of the class token and L tokens, as [B, M] i64:
Tensor reliable_rows(const Tensor& mask);    // the class token and the tokens where mask is 0
Tensor unreliable_rows(const Tensor& mask);  // those where mask is 1
// The way back: which row each place has in a sequence of the class token and the tokens where `dropped` is 0; row 0,
// the class token's, where mask is 1. mask, dropped: [B, L], dropped a subset of mask -> [B, 1 + L] i64.
Tensor rows_of_places(const Tensor& mask, const Tensor& dropped);

// What stands at some rows of [class, tokens].
//   values: [B, L], codes or a mask; rows: [B, M] i64, 0 not among them -> [B, M] like values
Tensor at_rows(const Tensor& values, const Tensor& rows);

// Rows of the m tokens where mask is 1, each at its place. Elsewhere the first of them stands again, for nobody reads.
//   x: [B, m, D], m > 0; mask: [B, L] -> [B, L, D]
Var spread(const Var& x, const Tensor& mask);

// mask with a column of `value` in front, for sequences that start with the class token. [B, L] -> [B, 1 + L].
Tensor with_class_place(const Tensor& mask, double value);

}  // namespace addp
