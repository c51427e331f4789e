// Forward passes of the transformer block.
#include "nn/transformer.h"

#include <cmath>

#include "tensor/dispatch.h"

namespace addp {

constexpr double kLayerNormEps = 1e-6;

Attention::Attention(int64_t width, int64_t heads, Options options)
    : heads(heads), qkv(width, 3 * width, true, options), proj(width, width, true, options) {
  check(heads > 0 && width % heads == 0, "attention: width ", width, " cannot be split among ", heads, " heads");
}

static Var take(const Var& x, const Tensor& rows) { return rows.defined() ? gather_tokens(x, rows) : x; }

Var Attention::operator()(const Var& x, const Tensor& rows) const {
  return proj(take(attention(qkv(x), heads, causal), rows));
}

// Writes row [B H, 1, Dh] as place `place` of rows [B H, capacity, Dh]; where that is full, it moves to a larger one.
// Capacities grow by chunks, not by ones, so that most steps find memory of their sizes to reuse and copy one row.
static void append(Tensor& rows, int64_t place, const Tensor& row) {
  constexpr int64_t kChunk = 32;
  const int64_t BH = row.dim(0), Dh = row.dim(2), old = rows.defined() ? rows.dim(1) : 0;
  Tensor larger = place < old ? rows : zeros({BH, old + kChunk, Dh}, row.options());
  const int64_t capacity = larger.dim(1);
  dispatch(row, [&](auto dev, auto t) {
    using T = decltype(t);
    T* y = larger.ptr<T>();
    if (place == old && old > 0) kernel::copy_blocks<T>(dev, y, capacity * Dh, rows.ptr<T>(), old * Dh, old * Dh, BH);
    kernel::copy_blocks<T>(dev, y + place * Dh, capacity * Dh, row.ptr<T>(), Dh, Dh, BH);
  });
  rows = larger;
}

Var Attention::next(const Var& x, KeyValues& past) const {
  const NoGrad no_grad;
  check(x.rank() == 3 && x.dim(1) == 1, "attention: the next place must be [B, 1, D], found ", x.shape());
  const int64_t B = x.dim(0), D = x.dim(2), Dh = D / heads, BH = B * heads;
  const Var packed = qkv(x);
  // With one place, [B, 1, D] and [B H, 1, Dh] are the same numbers in the same order.
  const auto part = [&](int64_t i) { return reshape(slice(packed, 2, i * D, (i + 1) * D), {BH, 1, Dh}); };
  append(past.key, past.places, part(1).value());
  append(past.value, past.places, part(2).value());
  const int64_t places = ++past.places, capacity = past.key.dim(1);

  // key query^T rather than query key^T: the same numbers, and the many keys need no transposing.
  const Var query = affine(reshape(part(0), {BH, Dh, 1}), 1 / std::sqrt(static_cast<double>(Dh)), 0);
  const Var scores = reshape(matmul(Var(past.key), query), {BH, 1, capacity});
  Var weights = softmax(slice(scores, 2, 0, places));
  if (places < capacity) weights = concat({weights, Var(zeros({BH, 1, capacity - places}, x.options()))}, 2);
  return proj(reshape(matmul(weights, Var(past.value)), {B, 1, D}));
}

Mlp::Mlp(int64_t width, int64_t hidden, Options options)
    : fc1(width, hidden, true, options), fc2(hidden, width, true, options) {}

Var Mlp::operator()(const Var& x) const { return fc2(bias_gelu(linear(x, fc1.weight, {}, recompute), fc1.bias)); }

Block::Block(int64_t width, int64_t heads, double mlp_ratio, double drop_path, Options options)
    : drop_path_rate(drop_path),
      norm1(width, kLayerNormEps, options),
      attn(width, heads, options),
      norm2(width, kLayerNormEps, options),
      mlp(width, std::llround(static_cast<double>(width) * mlp_ratio), options) {}

Var Block::operator()(const Var& x, const Mode& mode, const Tensor& rows) const {
  const Var y = take(x, rows) + drop_path(attn(norm1(x), rows), drop_path_rate, mode);
  return y + drop_path(mlp(norm2(y)), drop_path_rate, mode);
}

Var Block::next(const Var& x, KeyValues& past) const {
  const Var y = x + attn.next(norm1(x), past);
  return y + mlp(norm2(y));
}

PatchEmbed::PatchEmbed(int64_t channels, int64_t width, int64_t patch_size, Options options)
    : proj(channels, width, patch_size, patch_size, Padding{}, true, options) {}

Var PatchEmbed::operator()(const Var& image) const {
  const int64_t D = proj.weight.dim(0), C = proj.weight.dim(1), p = proj.stride;
  check(image.rank() == 4 && image.dim(1) == C && image.dim(2) % p == 0 && image.dim(3) % p == 0,
        "patch_embed: image must be [B, ", C, ", Hi, Wi] with sides that are multiples of ", p, ", found ",
        image.shape());
  const int64_t B = image.dim(0), rows = image.dim(2) / p, columns = image.dim(3) / p;
  const Var patches = permute(reshape(image, {B, C, rows, p, columns, p}), {0, 2, 4, 1, 3, 5});
  return linear(reshape(patches, {B, rows * columns, C * p * p}), reshape(proj.weight, {D, C * p * p}), proj.bias);
}

}  // namespace addp
