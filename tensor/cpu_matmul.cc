// Matrix products. The result is cut into blocks by its size alone, one task each; a task packs its share of A and B
// into panels and runs the register tile over them, along all of K in fixed chunks. So the order of summation, and
// with it every bit, is the same for any number of threads.
#include <algorithm>

#include "tensor/cpu_tile.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {
namespace {

using cpu::ceil_div;
using cpu::kPanelCols;
using cpu::kPanelRows;
using cpu::kTileRows;
using cpu::Part;

constexpr int64_t kChunk = 512;         // of K
constexpr int64_t kBlockRows = 224;     // of C per task; a multiple of 14
constexpr int64_t kMinBlockRows = 112;  // packing B again for each block costs about 8 / rows of the time
constexpr int64_t kBlockCols = 512;     // of C per task

template <class T>
struct Product {
  T* c;
  const T* a;
  const T* b;
  const T* bias;  // [N], or null
  int64_t M, N, K;
  bool trans_a, trans_b, accumulate;

  int64_t lda() const { return trans_a ? M : K; }
  int64_t ldb() const { return trans_b ? K : N; }

  // Rows [k0, k0 + kc), columns [n0, n0 + cols) of op(B).
  void pack_b(T* panel, int64_t n0, int64_t cols, int64_t k0, int64_t kc) const {
    if (trans_b) {
      cpu::transpose<true>(panel, kPanelCols<T>, b + n0 * K + k0, K, cols, kc);
    } else {
      cpu::copy_rows(panel, kPanelCols<T>, b + k0 * N + n0, N, kc, cols);
    }
  }
  void pack_a(T* tile, int64_t m0, int64_t rows, int64_t k0, int64_t kc) const {
    if (trans_a) {
      cpu::copy_rows(tile, kPanelRows<T>, a + k0 * M + m0, M, kc, rows);
    } else {
      cpu::transpose<true>(tile, kPanelRows<T>, a + m0 * K + k0, K, rows, kc);
    }
  }

  void block(Part m, Part n) const {
    const int64_t panels = ceil_div(n.size, kPanelCols<T>), tiles = ceil_div(m.size, kTileRows);
    const int64_t chunks = ceil_div(K, kChunk), longest = ceil_div(K, chunks);
    T* packed_b = cpu::scratch<T>(cpu::Slot::task, longest * (panels * kPanelCols<T> + kPanelRows<T>));
    T* packed_a = packed_b + longest * panels * kPanelCols<T>;
    const bool add = accumulate || bias != nullptr;
    for (int64_t i = 0; bias != nullptr && i < m.size; ++i) {
      std::copy_n(bias + n.begin, n.size, c + (m.begin + i) * N + n.begin);
    }
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const Part k(K, chunks, chunk);
      for (int64_t p = 0, j = 0; p < panels; ++p, j += kPanelCols<T>) {
        pack_b(packed_b + j * k.size, n.begin + j, std::min<int64_t>(kPanelCols<T>, n.size - j), k.begin, k.size);
      }
      for (int64_t t = 0; t < tiles; ++t) {
        const Part rows(m.size, tiles, t);
        pack_a(packed_a, m.begin + rows.begin, rows.size, k.begin, k.size);
        T* to = c + (m.begin + rows.begin) * N + n.begin;
        for (int64_t j = 0; j < n.size; j += kPanelCols<T>) {
          cpu::multiply_tile(to + j, N, packed_a, {k.size, kPanelRows<T>}, packed_b + j * k.size, rows.size,
                             std::min<int64_t>(kPanelCols<T>, n.size - j), add || chunk > 0);
        }
      }
    }
  }
};

// product(i) gives the i-th of `batch` products, all of the same size.
template <class T, class F>
void multiply(int64_t batch, int64_t M, int64_t N, F product) {
  if (batch * M * N == 0) return;
  const int64_t col_blocks = ceil_div(N, kBlockCols);
  const int64_t rows = batch * col_blocks * M < 8 * kBlockRows ? kMinBlockRows : kBlockRows;
  int64_t row_blocks = ceil_div(M, rows);
  if (row_blocks > 1) row_blocks += row_blocks % 2;  // a few tasks should share out evenly
  parallel_for(batch * row_blocks * col_blocks, [&](int64_t task) {
    const int64_t block = task % (row_blocks * col_blocks);
    const Product<T> p = product(task / (row_blocks * col_blocks));
    // Whole panels in every block but the last.
    const int64_t panels = ceil_div(N, kPanelCols<T>);
    Part n(panels, col_blocks, block % col_blocks);
    n.begin *= kPanelCols<T>;
    n.size = std::min(N, n.begin + n.size * kPanelCols<T>) - n.begin;
    p.block(Part(M, row_blocks, block / col_blocks), n);
  });
}

}  // namespace

template <class T>
void gemm(Cpu cpu, T* C, const T* A, const T* B, int64_t M, int64_t N, int64_t K, bool trans_a, bool trans_b,
          bool accumulate, int64_t batch, int64_t stride_c, int64_t stride_a, int64_t stride_b) {
  if (K == 0) {
    for (int64_t i = 0; i < batch && !accumulate; ++i) fill(cpu, C + i * stride_c, M * N, 0.0);
    return;
  }
  multiply<T>(batch, M, N, [&](int64_t i) {
    return Product<T>{C + i * stride_c, A + i * stride_a, B + i * stride_b, nullptr, M, N, K,
                      trans_a,          trans_b,          accumulate};
  });
}

template <class T>
void linear_fwd(Cpu, T* y, const T* x, const T* weight, const T* bias, int64_t M, int64_t N, int64_t K) {
  check(K > 0, "linear: no input features");
  multiply<T>(1, M, N, [&](int64_t) { return Product<T>{y, x, weight, bias, M, N, K, false, true, false}; });
}

#define INSTANTIATE(T)                                                                                           \
  template void gemm(Cpu, T*, const T*, const T*, int64_t, int64_t, int64_t, bool, bool, bool, int64_t, int64_t, \
                     int64_t, int64_t);                                                                          \
  template void linear_fwd(Cpu, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
