// Computations that have no gradient: code lookups, masks, sampling. Tensors in, tensors out.
#pragma once
#include <vector>

#include "tensor/tensor.h"

namespace addp {

Tensor nearest_codes(const Tensor& z, const Tensor& codebook);  // z: [..., D], codebook: [K, D] -> [...] i64
// How often each code occurs and the sum of its vectors: count [K], sum [K, D], in z's dtype.
void code_sums(const Tensor& z, const Tensor& codes, int64_t codebook_size, Tensor& count, Tensor& sum);
// 1 at the count[b] smallest entries of row b, else 0. x: [B, L] -> [B, L].
Tensor smallest_mask(const Tensor& x, const std::vector<int64_t>& count);
Tensor argmax(const Tensor& x);                                        // [..., D] -> [...] i64, the first on ties
Tensor sample_categorical(const Tensor& prob, const Tensor& uniform);  // prob: [..., K], uniform: [...] -> [...] i64
Tensor top_p(const Tensor& prob, double p);  // the smallest set of largest entries that sums to p, renormalised

}  // namespace addp
