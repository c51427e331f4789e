// Matrix products. The result is cut into blocks by its size alone, one task each. B is packed into panels first, once
// for all tasks of a product; a task runs the register tile over its share of A, which it packs only where A is
// transposed, along all of K in fixed chunks. So the order of summation, and with it every bit, is the same for any
// number of threads.
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
constexpr int64_t kMinBlockRows = 112;  // where there would be few tasks
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
  int64_t chunks() const { return ceil_div(K, kChunk); }
  static int64_t packed_width(Part n) { return ceil_div(n.size, kPanelCols<T>) * kPanelCols<T>; }

  // Panel p of columns n, rows of one chunk of K, to its place among all of them: [chunk, panel, step, column].
  void pack_panel(T* packed, Part n, int64_t p, int64_t chunk) const {
    const Part k(K, chunks(), chunk);
    const int64_t j = p * kPanelCols<T>;
    pack_b(packed + k.begin * packed_width(n) + j * k.size, n.begin + j, std::min<int64_t>(kPanelCols<T>, n.size - j),
           k.begin, k.size);
  }

  // Rows m, columns n of C, from packed columns of B and room for a packed tile of A^T.
  void block(Part m, Part n, const T* packed_b, T* packed_a) const {
    const int64_t tiles = ceil_div(m.size, kTileRows);
    for (int64_t chunk = 0; chunk < chunks(); ++chunk) {
      const Part k(K, chunks(), chunk);
      const T* panels = packed_b + k.begin * packed_width(n);
      const T* row = chunk == 0 && bias != nullptr ? bias + n.begin : nullptr;
      for (int64_t t = 0; t < tiles; ++t) {
        const Part rows(m.size, tiles, t);
        const int64_t m0 = m.begin + rows.begin;
        if (trans_a) cpu::copy_rows(packed_a, kPanelRows<T>, a + k.begin * M + m0, M, k.size, rows.size);
        T* to = c + m0 * N + n.begin;
        for (int64_t j = 0; j < n.size; j += kPanelCols<T>) {
          const int64_t cols = std::min<int64_t>(kPanelCols<T>, n.size - j);
          const T *panel = panels + j * k.size, *shift = row == nullptr ? row : row + j;
          const bool add = accumulate || chunk > 0;
          if (trans_a) {
            cpu::multiply_tile(to + j, N, packed_a, {k.size, kPanelRows<T>}, panel, rows.size, cols, add, shift);
          } else {
            cpu::multiply_rows(to + j, N, a + m0 * K + k.begin, K, k.size, panel, rows.size, cols, add, shift);
          }
        }
      }
    }
  }
};

// Columns of block i: whole panels in every block but the last.
template <class T>
Part block_columns(int64_t N, int64_t blocks, int64_t i) {
  Part n(ceil_div(N, kPanelCols<T>), blocks, i);
  n.begin *= kPanelCols<T>;
  n.size = std::min(N, n.begin + n.size * kPanelCols<T>) - n.begin;
  return n;
}

template <class T>
int64_t row_blocks_of(int64_t batch, int64_t M, int64_t N) {
  const int64_t rows = batch * ceil_div(N, kBlockCols) * M < 8 * kBlockRows ? kMinBlockRows : kBlockRows;
  const int64_t blocks = ceil_div(M, rows);
  return blocks > 1 ? blocks + blocks % 2 : 1;  // a few tasks should share out evenly
}

// One product: B is packed once for all tasks, a block of columns at a time.
template <class T>
void multiply_shared(const Product<T>& p, int64_t row_blocks) {
  const int64_t col_blocks = ceil_div(p.N, kBlockCols), chunk = ceil_div(p.K, p.chunks());
  for (int64_t i = 0; i < col_blocks; ++i) {
    const Part n = block_columns<T>(p.N, col_blocks, i);
    const int64_t panels = ceil_div(n.size, kPanelCols<T>);
    T* const packed = cpu::scratch<T>(cpu::Slot::shared, p.K * p.packed_width(n));
    parallel_for(panels * p.chunks(), [&](int64_t task) { p.pack_panel(packed, n, task % panels, task / panels); });
    parallel_for(row_blocks, [&](int64_t task) {
      p.block(Part(p.M, row_blocks, task), n, packed, cpu::scratch<T>(cpu::Slot::task, chunk * kPanelRows<T>));
    });
  }
}

// product(i) gives the i-th of `batch` products, all of the same size.
template <class T, class F>
void multiply(int64_t batch, int64_t M, int64_t N, F product) {
  if (batch * M * N == 0) return;
  const int64_t row_blocks = row_blocks_of<T>(batch, M, N), col_blocks = ceil_div(N, kBlockCols);
  if (batch == 1 && row_blocks > 1) return multiply_shared(product(0), row_blocks);
  parallel_for(batch * row_blocks * col_blocks, [&](int64_t task) {
    const int64_t block = task % (row_blocks * col_blocks);
    const Product<T> p = product(task / (row_blocks * col_blocks));
    const Part n = block_columns<T>(N, col_blocks, block % col_blocks);
    const int64_t size = p.K * p.packed_width(n);
    T* packed = cpu::scratch<T>(cpu::Slot::task, size + ceil_div(p.K, p.chunks()) * kPanelRows<T>);
    for (int64_t chunk = 0; chunk < p.chunks(); ++chunk) {
      for (int64_t panel = 0; panel < ceil_div(n.size, kPanelCols<T>); ++panel) p.pack_panel(packed, n, panel, chunk);
    }
    p.block(Part(M, row_blocks, block / col_blocks), n, packed, packed + size);
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
