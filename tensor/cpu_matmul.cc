// Matrix products. The result is cut into tiles and panels by its size alone, some of which are a task. Panels of B are
// packed, once for all tasks where there are many rows; rows of A are read as they lie, or packed tile by tile where A
// is transposed, and moved together where they would crowd the cache. A task runs the register tile along all of K in
// fixed chunks. So the order of summation, and with it every bit, is the same for any number of threads.
#include <algorithm>
#include <type_traits>

#include "tensor/cpu_amx.h"
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

constexpr int64_t kChunk = 512;      // of K
constexpr int64_t kBlockCols = 512;  // of C, for which B is packed at a time
constexpr int64_t kBlockTiles = 16;  // of C per task, at most
constexpr int64_t kTasks = 4;        // at least, where the product is large enough

// C = op(A) op(B) + bias, or += without a bias.
template <class T>
struct Product {
  T* c;
  const T* a;
  const T* b;
  const T* bias;  // [N], or null
  int64_t M, N, K;
  bool trans_a, trans_b, accumulate;

  static constexpr int64_t n = cpu::kRegisterLanes<T>;

  void run() const {
    if constexpr (std::is_same_v<T, float>) {
      if (cpu::amx_pays(M, N, K)) {
        return cpu::amx_multiply(c, a, b, bias, M, N, K, trans_a, trans_b, accumulate);
      }
    }
    const int64_t blocks = ceil_div(N, kBlockCols), panels = ceil_div(N, kPanelCols<T>), tiles = ceil_div(M, kTileRows);
    if (tiles <= kBlockTiles) return run_columns(panels, tiles);
    for (int64_t i = 0; i < blocks; ++i) run_rows(Part(panels, blocks, i), tiles);
  }

  int64_t chunks() const { return ceil_div(K, kChunk); }
  Part chunk(int64_t i) const { return Part(K, chunks(), i); }
  Part rows_of(int64_t tile) const { return Part(M, ceil_div(M, kTileRows), tile); }
  int64_t cols_of(int64_t panel) const { return std::min<int64_t>(kPanelCols<T>, N - panel * kPanelCols<T>); }

  // Few rows: each task packs some panels of B for itself.
  void run_columns(int64_t panels, int64_t tiles) const {
    const int64_t shares = std::min(panels, std::max(kTasks, ceil_div(panels * kPanelCols<T>, kBlockCols)));
    parallel_for(shares, [&](int64_t task) {
      const Part mine(panels, shares, task);
      T* const packed = cpu::scratch<T>(cpu::Slot::task, packed_size(mine) + left_size());
      for (int64_t i = 0; i < chunks() * mine.size; ++i) pack(packed, mine, i / mine.size, i % mine.size);
      multiply(packed, mine, Part(tiles, 1, 0), packed + packed_size(mine));
    });
  }

  // Many rows: these panels of B are packed once for all tasks.
  void run_rows(Part panels, int64_t tiles) const {
    T* const packed = cpu::scratch<T>(cpu::Slot::shared, packed_size(panels));
    parallel_for(chunks() * panels.size, [&](int64_t i) { pack(packed, panels, i / panels.size, i % panels.size); });
    int64_t blocks = std::max(ceil_div(tiles, kBlockTiles), kTasks);
    blocks += blocks % 2;  // a few tasks should share out evenly
    parallel_for(blocks, [&](int64_t task) {
      multiply(packed, panels, Part(tiles, blocks, task),
               trans_a || crowded() ? cpu::scratch<T>(cpu::Slot::task, left_size()) : nullptr);
    });
  }

  // Packed B: [chunk, panel, step, kPanelCols].
  int64_t packed_size(Part panels) const { return K * panels.size * kPanelCols<T>; }
  void pack(T* packed, Part panels, int64_t i, int64_t p) const {
    const Part k = chunk(i);
    T* to = packed + (k.begin * panels.size + p * k.size) * kPanelCols<T>;
    const int64_t j = (panels.begin + p) * kPanelCols<T>, cols = cols_of(panels.begin + p);
    if (trans_b) {
      cpu::transpose<true>(to, kPanelCols<T>, b + j * K + k.begin, K, cols, k.size);
    } else {
      cpu::copy_rows(to, kPanelCols<T>, b + k.begin * N + j, N, k.size, cols);
    }
  }

  // Whether the rows of a tile of A meet in one set of the first-level cache, which has 8 or 12 places.
  bool crowded() const { return !trans_a && kTileRows > 8 && K * static_cast<int64_t>(sizeof(T)) % 4096 == 0; }
  int64_t left_step() const { return (ceil_div(ceil_div(K, chunks()), n) + 1) * n; }  // between rows moved together
  int64_t left_size() const { return std::max(ceil_div(K, chunks()) * kPanelRows<T>, kTileRows * left_step()); }

  // These tiles times the packed panels; left has room for a tile of A, if it is transposed or crowded.
  void multiply(const T* packed, Part panels, Part tiles, T* left) const {
    for (int64_t i = 0; i < chunks(); ++i) {
      const Part k = chunk(i);
      const bool add = accumulate || i > 0;
      for (int64_t t = tiles.begin; t < tiles.begin + tiles.size; ++t) {
        const Part rows = rows_of(t);
        const T* from = trans_a ? a + k.begin * M + rows.begin : a + rows.begin * K + k.begin;
        if (trans_a) cpu::copy_rows(left, kPanelRows<T>, from, M, k.size, rows.size);
        if (crowded()) cpu::copy_rows(left, left_step(), from, K, rows.size, k.size);
        for (int64_t p = 0; p < panels.size; ++p) {
          const int64_t j = (panels.begin + p) * kPanelCols<T>, cols = cols_of(panels.begin + p);
          const T* right = packed + (k.begin * panels.size + p * k.size) * kPanelCols<T>;
          const T* row = i == 0 && bias != nullptr ? bias + j : nullptr;
          T* to = c + rows.begin * N + j;
          if (trans_a) {
            cpu::multiply_tile(to, N, left, {k.size, kPanelRows<T>}, right, rows.size, cols, add, {row});
          } else {
            cpu::multiply_rows(to, N, crowded() ? left : from, crowded() ? left_step() : K, k.size, right, rows.size,
                               cols, add, {row});
          }
        }
      }
    }
  }
};

}  // namespace

template <class T>
void gemm(Cpu cpu, T* C, const T* A, const T* B, int64_t M, int64_t N, int64_t K, bool trans_a, bool trans_b,
          bool accumulate, int64_t batch, int64_t stride_c, int64_t stride_a, int64_t stride_b) {
  if (K == 0) {
    for (int64_t i = 0; i < batch && !accumulate; ++i) fill(cpu, C + i * stride_c, M * N, 0.0);
    return;
  }
  const auto product = [&](int64_t i) {
    Product<T>{C + i * stride_c, A + i * stride_a, B + i * stride_b, nullptr, M, N, K, trans_a, trans_b, accumulate}
        .run();
  };
  if (M * N == 0) return;
  if (batch >= kTasks) {
    parallel_for(batch, product);  // each product by one thread
  } else {
    for (int64_t i = 0; i < batch; ++i) product(i);
  }
}

template <class T>
void linear_fwd(Cpu, T* y, const T* x, const T* weight, const T* bias, int64_t M, int64_t N, int64_t K) {
  check(K > 0, "linear: no input features");
  if (M * N > 0) Product<T>{y, x, weight, bias, M, N, K, false, true, false}.run();
}

#define INSTANTIATE(T)                                                                                           \
  template void gemm(Cpu, T*, const T*, const T*, int64_t, int64_t, int64_t, bool, bool, bool, int64_t, int64_t, \
                     int64_t, int64_t);                                                                          \
  template void linear_fwd(Cpu, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
