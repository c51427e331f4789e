// Matrix products by cuBLAS. It thinks in columns: a row-major [M, N] matrix is its column-major [N, M], so C = op(A)
// op(B) is asked for as C^T = op(B)^T op(A)^T, with the operands exchanged and nothing moved.
#include <atomic>
#include <climits>

#include "cuda/reduce.cuh"
#include "tensor/matmul_precision.h"

namespace addp {
namespace {

std::atomic<MatmulPrecision> present_precision{MatmulPrecision::f32};

}  // namespace

void set_matmul_precision(MatmulPrecision precision) { present_precision = precision; }
MatmulPrecision matmul_precision() { return present_precision; }

MatmulPrecision matmul_precision_of(const std::string& name) {
  if (name == "f32") return MatmulPrecision::f32;
  if (name == "tf32") return MatmulPrecision::tf32;
  if (name == "bf16") return MatmulPrecision::bf16;
  fail(ErrorKind::usage, "precision of products: '", name, "' is none; expected f32, tf32 or bf16");
}

}  // namespace addp

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

// The upper half of a float's bits, rounded to nearest, ties to even: a bfloat16. NaN stays NaN.
__device__ inline unsigned to_bf16(float x) {
  const unsigned bits = __float_as_uint(x);
  return x != x ? bits >> 16 | 0x40u : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}

// y[i] = x[i] as bfloat16; four at a time when `packed`.
__global__ __launch_bounds__(kThreads) void to_bf16_kernel(uint16_t* y, const float* x, int64_t n, bool packed) {
  ADDP_MAX_THREADS(kThreads);
  for_packs<float>(n, packed, thread_index(), thread_count(), [&]<int W>(int64_t i, Width<W> width) {
    const Pack<float, W> v = load(x + i, width);
    if constexpr (W == 4) {
      *reinterpret_cast<uint2*>(y + i) =
          make_uint2(to_bf16(v[0]) | to_bf16(v[1]) << 16, to_bf16(v[2]) | to_bf16(v[3]) << 16);
    } else {
      y[i] = static_cast<uint16_t>(to_bf16(v[0]));
    }
  });
}

// One operand of a product, as the row-major caller has it. Element (i, j) of op(X) lies at i * leading + j, or at
// j * leading + i when transposed.
template <class T>
struct Operand {
  const T* data;
  bool transposed;
  int leading;
  int64_t stride;    // to the next of a batch
  int64_t elements;  // of one

  cublasOperation_t operation() const { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }
  int64_t extent(int64_t batch) const { return stride * (batch - 1) + elements; }
};
struct ProductShape {
  int M, N, K, batch;
};

cublasStatus_t multiply(cublasHandle_t handle, const ProductShape& s, const double* alpha, const Operand<double>& A,
                        const Operand<double>& B, const double* beta, double* C, int64_t stride_c) {
  return cublasDgemmStridedBatched(handle, B.operation(), A.operation(), s.N, s.M, s.K, alpha, B.data, B.leading,
                                   B.stride, A.data, A.leading, A.stride, beta, C, s.N, stride_c, s.batch);
}

// Inputs of some type, sums and results in float.
template <class T>
cublasStatus_t multiply_as(cublasHandle_t handle, const ProductShape& s, const float* alpha, const Operand<T>& A,
                           const Operand<T>& B, const float* beta, float* C, int64_t stride_c, cudaDataType_t type,
                           cublasComputeType_t compute) {
  return cublasGemmStridedBatchedEx(handle, B.operation(), A.operation(), s.N, s.M, s.K, alpha, B.data, type, B.leading,
                                    B.stride, A.data, type, A.leading, A.stride, beta, C, CUDA_R_32F, s.N, stride_c,
                                    s.batch, compute, CUBLAS_GEMM_DEFAULT);
}

Operand<uint16_t> as_bf16(Cuda dev, const Operand<float>& x, int64_t batch, const Scratch& place) {
  auto* y = place.as<uint16_t>();
  const bool packed = aligned(x.data);
  launch(to_bf16_kernel, pack_dims<float>(dev, x.extent(batch), packed), y, x.data, x.extent(batch), packed);
  return {y, x.transposed, x.leading, x.stride, x.elements};
}

cublasStatus_t multiply(cublasHandle_t handle, const ProductShape& s, const float* alpha, const Operand<float>& A,
                        const Operand<float>& B, const float* beta, float* C, int64_t stride_c) {
  switch (matmul_precision()) {
    case MatmulPrecision::f32:
      return multiply_as(handle, s, alpha, A, B, beta, C, stride_c, CUDA_R_32F, CUBLAS_COMPUTE_32F);
    case MatmulPrecision::tf32:
      return multiply_as(handle, s, alpha, A, B, beta, C, stride_c, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32);
    case MatmulPrecision::bf16: {
      const Cuda dev = current_cuda();
      const Scratch a(dev, 2 * A.extent(s.batch)), b(dev, 2 * B.extent(s.batch));
      return multiply_as(handle, s, alpha, as_bf16(dev, A, s.batch, a), as_bf16(dev, B, s.batch, b), beta, C, stride_c,
                         CUDA_R_16BF, CUBLAS_COMPUTE_32F);
    }
  }
  return CUBLAS_STATUS_NOT_SUPPORTED;
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
  const Operand<T> a{A, trans_a, static_cast<int>(trans_a ? M : K), stride_a, M * K};
  const Operand<T> b{B, trans_b, static_cast<int>(trans_b ? K : N), stride_b, K * N};
  const ProductShape shape{static_cast<int>(M), static_cast<int>(N), static_cast<int>(K), static_cast<int>(batch)};
  addp::cublas(multiply(cublas_handle(dev), shape, &alpha, a, b, &beta, C, stride_c), "gemm");
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
