// Products of float32 matrices on the tile unit of Intel's server cores (AMX, from Sapphire Rapids on), which
// multiplies bfloat16 sixteen times as fast as the vector units multiply float32. Each number is cut into three
// bfloat16 that together hold all of its 24 bits,
//   x = x1 + x2 + x3,  |x2| <= 2^-8 |x1|,  |x3| <= 2^-16 |x1|,
// and six of the nine products are added up in float32; of the other three the largest are 2^-24 of the whole, as much
// as float32's rounding of a product. Sums are more exact than the vector units' (tests/test_amx.cc compares both with
// float64), at up to 16/6 of their speed. What differs: an infinity, or a number beyond the largest bfloat16 (3.39e38),
// gives NaN; numbers below 1e-33 lose digits.
#pragma once
#include <cstdint>

namespace addp::cpu {

// Whether there is one that may be used: compiled for, and allowed by the operating system and by the environment
// variable ADDP_AMX ("never", "always" for products of any size, or unset for those where it pays). Throws Error(usage)
// at any other value of that.
bool has_amx();

// Whether a product of this size should be computed there; never where there is none.
bool amx_pays(int64_t M, int64_t N, int64_t K);

// C [M,N] = op(A) op(B) + bias, or += where `accumulate`. A [M,K] or, transposed, [K,M]; B [K,N] or [N,K]; bias [N] or
// null (not together with accumulate). The order of summation depends on the sizes alone. Only where has_amx().
void amx_multiply(float* C, const float* A, const float* B, const float* bias, int64_t M, int64_t N, int64_t K,
                  bool trans_a, bool trans_b, bool accumulate);

}  // namespace addp::cpu
