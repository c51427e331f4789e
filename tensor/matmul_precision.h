// How exactly the device computes matrix products of float32 (linear layers and matmul, by cuBLAS). float64 products,
// attention, convolutions and everything else never change. Without CUDA's own headers.
#pragma once
#include <string>

namespace addp {

enum class MatmulPrecision {
  f32,   // the default: as float32 says
  tf32,  // inputs rounded to 10 bits behind the point, on tensor cores (compute capability 8.0 and later)
  bf16,  // inputs rounded to 7 bits, on tensor cores (likewise); sums in float32 in either case
};

// Of the process, for products launched from now on. f32 at the start.
void set_matmul_precision(MatmulPrecision precision);
MatmulPrecision matmul_precision();

// "f32", "tf32", "bf16"; anything else throws Error(usage).
MatmulPrecision matmul_precision_of(const std::string& name);

}  // namespace addp
