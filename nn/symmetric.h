// Symmetric matrices in float64 on the CPU: a factor of a positive semi-definite one, and eigenvalues. What the Frechet
// distance needs; deterministic for any number of threads.
#pragma once
#include <vector>

#include "tensor/tensor.h"

namespace addp {

// F with F F^T = a, for a positive semi-definite a [n, n] f64 of rank r -> [n, r]. Cholesky's method with pivoting,
// which stops where what is left of the diagonal is rounding (Higham 1990).
Tensor semidefinite_factor(const Tensor& a);

// All eigenvalues of a symmetric a [n, n] f64, in ascending order: Householder's reduction to a tridiagonal matrix,
// then QL with implicit shifts (Golub & Van Loan, Sec. 8.3). Absolute error about 1e-16 n times the largest.
std::vector<double> symmetric_eigenvalues(const Tensor& a);

}  // namespace addp
