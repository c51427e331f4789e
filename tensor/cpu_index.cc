// Rows by index on the CPU: gather and its backward, which adds rows up in a fixed order.
#include <algorithm>
#include <cstring>

#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {

template <class T>
void gather_rows_fwd(Cpu, T* y, const T* x, const int64_t* index, int64_t B, int64_t N, int64_t M, int64_t D,
                     bool shared) {
  parallel_ranges(B * M, cpu::row_grain(D), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t i = index[row];
      check(i >= 0 && i < N, "gather_rows: index ", i, " is outside [0, ", N, ")");
      const T* from = x + ((shared ? 0 : row / M * N) + i) * D;
      std::copy(from, from + D, y + row * D);
    }
  });
}

// Each task owns a range of result rows and adds what belongs to them, in the order of dy.
template <class T>
void gather_rows_bwd(Cpu, T* dx, const T* dy, const int64_t* index, int64_t B, int64_t N, int64_t M, int64_t D,
                     bool shared) {
  const int64_t tables = shared ? 1 : B, rows = shared ? B * M : M;
  // Every task reads all indices of its table, so there are few.
  const int64_t parts = std::min<int64_t>(std::max<int64_t>(1, (rows + N) * D / cpu::kGrain), 8);
  const int64_t part_rows = (N + parts - 1) / parts;
  parallel_ranges(tables * parts, std::max<int64_t>(1, cpu::kGrain / std::max<int64_t>(1, (rows + N) * D)),
                  [&](int64_t first, int64_t last) {
                    for (int64_t task = first; task < last; ++task) {
                      const int64_t table = task / parts;
                      const int64_t begin = std::min(N, task % parts * part_rows);
                      const int64_t end = std::min(N, begin + part_rows);
                      T* to = dx + table * N * D;
                      std::fill(to + begin * D, to + end * D, T(0));
                      for (int64_t row = table * rows; row < (table + 1) * rows; ++row) {
                        const int64_t i = index[row];
                        if (i < begin || i >= end) continue;
                        for (int64_t d = 0; d < D; ++d) to[i * D + d] += dy[row * D + d];
                      }
                    }
                  });
}

#define ADDP_INSTANTIATE(T)                                                                                   \
  template void gather_rows_fwd(Cpu, T*, const T*, const int64_t*, int64_t, int64_t, int64_t, int64_t, bool); \
  template void gather_rows_bwd(Cpu, T*, const T*, const int64_t*, int64_t, int64_t, int64_t, int64_t, bool);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
