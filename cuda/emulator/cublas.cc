// Matrix products with cuBLAS' column-major conventions, in stream order. Each matrix is gathered into a dense
// row-major copy and multiplied by the CPU backend's gemm; op(A) op(B) column-major is op(B)^T op(A)^T row-major.
#include "cublas_v2.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "cuda/emulator/emulator.h"
#include "tensor/dispatch.h"

namespace addp::emulator {
namespace {

struct Handle {
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  size_t workspace_bytes = 0;
};

struct Bfloat16 {
  uint16_t bits;
};
// A float that tensor cores take as TF32: 10 bits behind the point, rounded to nearest.
struct Tf32 {
  float value;
};
template <class T, class S>
T read_as(S value) {
  if constexpr (std::is_same_v<S, Bfloat16>)
    return static_cast<T>(std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16));
  else if constexpr (std::is_same_v<S, Tf32>)
    return value.value - value.value != 0  // infinite or NaN
               ? value.value
               : std::bit_cast<float>((std::bit_cast<uint32_t>(value.value) + 0x1000) & ~uint32_t{0x1FFF});
  else return static_cast<T>(value);
}
template <class S, class T>
S write_as(T value) {
  if constexpr (std::is_same_v<S, Bfloat16>) {
    const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
    if (value != value) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};  // to nearest, ties to even
  } else {
    return static_cast<S>(value);
  }
}

// A column-major matrix in device memory.
template <class S>
struct Matrix {
  S* data;
  int rows, columns, leading;
  long long stride;  // to the next of a batch

  S* at(int i) const { return data + stride * i; }
  void check_range(const char* name, int i) const {
    if (rows == 0 || columns == 0) return;
    const size_t elements = static_cast<size_t>(leading) * static_cast<size_t>(columns - 1) + static_cast<size_t>(rows);
    if (!is_device_range(at(i), elements * sizeof(S)))
      fault("cublas gemm: matrix ", name, " (", rows, " x ", columns, ", leading dimension ", leading, ", number ", i,
            " of its batch) is not inside one live device allocation");
  }
  template <class T>
  std::vector<T> gather(int i) const {
    std::vector<T> dense(static_cast<size_t>(rows) * static_cast<size_t>(columns));
    for (size_t c = 0; c < static_cast<size_t>(columns); ++c)
      for (size_t r = 0; r < static_cast<size_t>(rows); ++r)
        dense[c * static_cast<size_t>(rows) + r] = read_as<T>(at(i)[c * static_cast<size_t>(leading) + r]);
    return dense;
  }
};

struct Shape3 {
  bool transpose_a, transpose_b;
  int m, n, k;
};

template <class T, class In, class Out>
void multiply(const Shape3& s, T alpha, const Matrix<const In>& A, const Matrix<const In>& B, T beta,
              const Matrix<Out>& C, int batch) {
  std::vector<T> product(static_cast<size_t>(s.m) * static_cast<size_t>(s.n));
  for (int i = 0; i < batch; ++i) {
    A.check_range("A", i), B.check_range("B", i), C.check_range("C", i);
    const std::vector<T> a = A.template gather<T>(i), b = B.template gather<T>(i);
    // A column-major matrix read row-major is its transpose.
    if (s.k > 0)
      kernel::gemm<T>(Cpu{}, product.data(), b.data(), a.data(), s.n, s.m, s.k, s.transpose_b, s.transpose_a, false, 1,
                      0, 0, 0);
    for (size_t c = 0; c < static_cast<size_t>(s.n); ++c)
      for (size_t r = 0; r < static_cast<size_t>(s.m); ++r) {
        Out& y = C.at(i)[c * static_cast<size_t>(C.leading) + r];
        const T value = alpha * product[c * static_cast<size_t>(s.m) + r];
        y = write_as<Out>(beta == 0 ? value : value + beta * read_as<T>(y));
      }
  }
}

// What the product must move: A and B are read, C is written, and read when something is added to it.
template <class In, class Out>
void note_gemm(const Matrix<const In>& A, const Matrix<const In>& B, const Matrix<Out>& C, int k, int batch,
               double beta) {
  const auto bytes = [batch](const auto& matrix) {
    const double copies = matrix.stride == 0 ? 1 : batch;
    return static_cast<double>(sizeof(*matrix.data)) * matrix.rows * matrix.columns * copies;
  };
  Launch launch;
  launch.name = concat_text("gemm<",
                            std::is_same_v<In, Bfloat16> ? "bf16"
                            : std::is_same_v<In, Tf32>   ? "tf32"
                            : sizeof(In) == 8            ? "double"
                                                         : "float",
                            ">");
  launch.numbers = {static_cast<double>(C.rows), static_cast<double>(C.columns), static_cast<double>(k),
                    static_cast<double>(batch), beta};
  launch.fetched = bytes(A) + bytes(B) + (beta == 0 ? 0 : bytes(C));
  launch.stored = bytes(C);
  note_product(std::move(launch));
}

template <class T, class In, class Out>
cublasStatus_t gemm(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
                    const T* alpha, const In* A, int lda, long long strideA, const In* B, int ldb, long long strideB,
                    const T* beta, Out* C, int ldc, long long strideC, int batch) {
  const std::lock_guard lock(device_lock());
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  const bool ta = transa != CUBLAS_OP_N, tb = transb != CUBLAS_OP_N;
  const Matrix<const In> a{A, ta ? k : m, ta ? m : k, lda, strideA}, b{B, tb ? n : k, tb ? k : n, ldb, strideB};
  const Matrix<Out> c{C, m, n, ldc, strideC};
  if (m < 0 || n < 0 || k < 0 || batch < 0 || lda < std::max(1, a.rows) || ldb < std::max(1, b.rows) ||
      ldc < std::max(1, m))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (in_device_memory(alpha) || in_device_memory(beta)) fault("cublas gemm: alpha and beta must be host pointers");
  if (m == 0 || n == 0 || batch == 0) return CUBLAS_STATUS_SUCCESS;
  const T alpha_value = *alpha, beta_value = *beta;
  note_gemm(a, b, c, k, batch, static_cast<double>(beta_value));
  enqueue(reinterpret_cast<Handle*>(handle)->stream, [=] {
    multiply<T>(Shape3{ta, tb, m, n, k}, alpha_value, a, b, beta_value, c, batch);
  });
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace
}  // namespace addp::emulator

using namespace addp::emulator;

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "the library was not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an unsupported value or parameter was passed";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "the functionality requested is not supported";
  }
  return "unknown status";
}
cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = reinterpret_cast<cublasHandle_t>(new Handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete reinterpret_cast<Handle*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  reinterpret_cast<Handle*>(handle)->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  const std::lock_guard lock(device_lock());
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (bytes && !is_device_range(workspace, bytes)) fault("cublasSetWorkspace: not device memory of ", bytes, " bytes");
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t) {
  return handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                         int m, int n, int k, const float* alpha, const float* A, int lda,
                                         long long strideA, const float* B, int ldb, long long strideB,
                                         const float* beta, float* C, int ldc, long long strideC, int batch) {
  return gemm(handle, transa, transb, m, n, k, alpha, A, lda, strideA, B, ldb, strideB, beta, C, ldc, strideC, batch);
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                         int m, int n, int k, const double* alpha, const double* A, int lda,
                                         long long strideA, const double* B, int ldb, long long strideB,
                                         const double* beta, double* C, int ldc, long long strideC, int batch) {
  return gemm(handle, transa, transb, m, n, k, alpha, A, lda, strideA, B, ldb, strideB, beta, C, ldc, strideC, batch);
}
cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                              int k, const float* alpha, const float* A, int lda, const float* B, int ldb,
                              const float* beta, float* C, int ldc) {
  return gemm(handle, transa, transb, m, n, k, alpha, A, lda, 0, B, ldb, 0, beta, C, ldc, 0, 1);
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                              int k, const double* alpha, const double* A, int lda, const double* B, int ldb,
                              const double* beta, double* C, int ldc) {
  return gemm(handle, transa, transb, m, n, k, alpha, A, lda, 0, B, ldb, 0, beta, C, ldc, 0, 1);
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                          int m, int n, int k, const void* alpha, const void* A, cudaDataType_t Atype,
                                          int lda, long long strideA, const void* B, cudaDataType_t Btype, int ldb,
                                          long long strideB, const void* beta, void* C, cudaDataType_t Ctype, int ldc,
                                          long long strideC, int batch, cublasComputeType_t compute, cublasGemmAlgo_t) {
  const auto call = [&]<class T, class In, class Out>(T, In, Out) {
    return gemm(handle, transa, transb, m, n, k, static_cast<const T*>(alpha), static_cast<const In*>(A), lda, strideA,
                static_cast<const In*>(B), ldb, strideB, static_cast<const T*>(beta), static_cast<Out*>(C), ldc,
                strideC, batch);
  };
  if (Atype != Btype) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (compute == CUBLAS_COMPUTE_64F)
    return Atype == CUDA_R_64F && Ctype == CUDA_R_64F ? call(double{}, double{}, double{})
                                                      : CUBLAS_STATUS_NOT_SUPPORTED;
  if (compute == CUBLAS_COMPUTE_32F_FAST_TF32)
    return Atype == CUDA_R_32F && Ctype == CUDA_R_32F ? call(float{}, Tf32{}, float{}) : CUBLAS_STATUS_NOT_SUPPORTED;
  if (compute != CUBLAS_COMPUTE_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (Atype == CUDA_R_32F && Ctype == CUDA_R_32F) return call(float{}, float{}, float{});
  if (Atype == CUDA_R_16BF && Ctype == CUDA_R_32F) return call(float{}, Bfloat16{}, float{});
  if (Atype == CUDA_R_16BF && Ctype == CUDA_R_16BF) return call(float{}, Bfloat16{}, Bfloat16{});
  return CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                            int k, const void* alpha, const void* A, cudaDataType_t Atype, int lda, const void* B,
                            cudaDataType_t Btype, int ldb, const void* beta, void* C, cudaDataType_t Ctype, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
  return cublasGemmStridedBatchedEx(handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C,
                                    Ctype, ldc, 0, 1, compute, algorithm);
}
