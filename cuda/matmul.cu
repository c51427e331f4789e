// Matrix products by cuBLAS. It thinks in columns: a row-major [M, N] matrix is its column-major [N, M], so C = op(A)
// op(B) is asked for as C^T = op(B)^T op(A)^T, with the operands exchanged and nothing moved.
#include <climits>

#include "cuda/context.h"
#include "cuda/device.h"

namespace addp::kernel {
namespace {

constexpr int kThreads = 256;
// y[i] = bias[i % N], the start of a product that adds to it.
template <class T>
__global__ __launch_bounds__(kThreads) void bias_rows_kernel(T* y, const T* bias, int64_t n, int64_t N) {
  ADDP_MAX_THREADS(kThreads);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) y[i] = bias[i % N];
}

cublasStatus_t multiply(cublasHandle_t handle, cublasOperation_t op_b, cublasOperation_t op_a, int N, int M, int K,
                        const float* alpha, const float* B, int ldb, int64_t stride_b, const float* A, int lda,
                        int64_t stride_a, const float* beta, float* C, int64_t stride_c, int batch) {
  return cublasSgemmStridedBatched(handle, op_b, op_a, N, M, K, alpha, B, ldb, stride_b, A, lda, stride_a, beta, C, N,
                                   stride_c, batch);
}
cublasStatus_t multiply(cublasHandle_t handle, cublasOperation_t op_b, cublasOperation_t op_a, int N, int M, int K,
                        const double* alpha, const double* B, int ldb, int64_t stride_b, const double* A, int lda,
                        int64_t stride_a, const double* beta, double* C, int64_t stride_c, int batch) {
  return cublasDgemmStridedBatched(handle, op_b, op_a, N, M, K, alpha, B, ldb, stride_b, A, lda, stride_a, beta, C, N,
                                   stride_c, batch);
}

}  // namespace

template <class T>
void gemm(Cuda dev, T* C, const T* A, const T* B, int64_t M, int64_t N, int64_t K, bool trans_a, bool trans_b,
          bool accumulate, int64_t batch, int64_t stride_c, int64_t stride_a, int64_t stride_b) {
  if (M == 0 || N == 0 || batch == 0) return;
  if (K == 0) {
    for (int64_t i = 0; i < batch && !accumulate; ++i) fill(dev, C + i * stride_c, M * N, 0.0);
    return;
  }
  check(M <= INT_MAX && N <= INT_MAX && K <= INT_MAX && batch <= INT_MAX, "gemm: extents above 2^31: ", M, ", ", N,
        ", ", K, ", ", batch);
  const T alpha = 1, beta = accumulate ? 1 : 0;
  addp::cublas(multiply(cublas_handle(dev), trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, trans_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                        static_cast<int>(N), static_cast<int>(M), static_cast<int>(K), &alpha, B,
                        static_cast<int>(trans_b ? K : N), stride_b, A, static_cast<int>(trans_a ? M : K), stride_a,
                        &beta, C, stride_c, static_cast<int>(batch)),
               "gemm");
}

template <class T>
void linear_fwd(Cuda dev, T* y, const T* x, const T* weight, const T* bias, int64_t M, int64_t N, int64_t K) {
  check(K > 0, "linear: no input features");
  const int64_t n = M * N, blocks = (n + kThreads - 1) / kThreads;
  if (bias != nullptr && n > 0) {
    const dim3 grid(static_cast<unsigned>(blocks < kGridBlocks ? blocks : kGridBlocks));
    launch(bias_rows_kernel<T>, Dims{grid, dim3(kThreads), 0, dev.stream}, y, bias, n, N);
  }
  gemm(dev, y, x, weight, M, N, K, false, true, bias != nullptr, 1, n, M * K, N * K);
}

#define ADDP_INSTANTIATE(T)                                                                                       \
  template void gemm(Cuda, T*, const T*, const T*, int64_t, int64_t, int64_t, bool, bool, bool, int64_t, int64_t, \
                     int64_t, int64_t);                                                                           \
  template void linear_fwd(Cuda, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)
#undef ADDP_INSTANTIATE

}  // namespace addp::kernel
