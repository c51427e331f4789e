// Codebook and sampling kernels on the CPU: nearest codes, code statistics, masks, categorical draws, top-p.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/cpu_math.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {

using cpu::VecD;
using cpu::VecI64;

namespace {

constexpr int64_t kCodesPerVector = cpu::kLanes<double>;

// The codebook in double, V = kCodesPerVector codes side by side: [K / V, D, V]; missing codes repeat the last one.
template <class T>
std::vector<double> packed_codebook(const T* codebook, int64_t K, int64_t D) {
  const int64_t blocks = (K + kCodesPerVector - 1) / kCodesPerVector;
  std::vector<double> packed(blocks * D * kCodesPerVector);
  for (int64_t k = 0; k < blocks * kCodesPerVector; ++k) {
    const T* code = codebook + std::min(k, K - 1) * D;
    double* to = packed.data() + k / kCodesPerVector * D * kCodesPerVector + k % kCodesPerVector;
    for (int64_t d = 0; d < D; ++d) to[d * kCodesPerVector] = code[d];
  }
  return packed;
}

// The best code of each lane so far.
struct Nearest {
  VecD distance = VecD{} + std::numeric_limits<double>::infinity();
  VecI64 code{};

  int64_t first() const {
    int64_t best = 0;
    for (int64_t l = 1; l < kCodesPerVector; ++l) {
      if (distance[l] < distance[best] || (distance[l] == distance[best] && code[l] < code[best])) best = l;
    }
    return code[best];
  }
};

}  // namespace

// Distances are sums of squared differences in double whatever T is, so float32 and float64 choose the same code.
template <class T>
void nearest_codes(Cpu, int64_t* code, const T* z, const T* codebook, int64_t N, int64_t K, int64_t D) {
  constexpr int64_t kRows = 4;  // rows that share a loaded code
  const std::vector<double> packed = packed_codebook(codebook, K, D);
  const int64_t blocks = static_cast<int64_t>(packed.size()) / (D * kCodesPerVector);
  parallel_ranges((N + kRows - 1) / kRows, 16, [&](int64_t begin, int64_t end) {
    std::vector<double> rows(kRows * D);
    for (int64_t group = begin; group < end; ++group) {
      const int64_t count = std::min(kRows, N - group * kRows);
      for (int64_t r = 0; r < kRows; ++r) {
        const T* from = z + (group * kRows + std::min(r, count - 1)) * D;
        for (int64_t d = 0; d < D; ++d) rows[d * kRows + r] = from[d];
      }
      Nearest nearest[kRows];
      VecI64 numbers{};
      for (int64_t l = 0; l < kCodesPerVector; ++l) numbers[l] = l;
      for (int64_t b = 0; b < blocks; ++b, numbers += kCodesPerVector) {
        VecD distance[kRows] = {};
        for (int64_t d = 0; d < D; ++d) {
          const VecD c = cpu::load_double(packed.data() + (b * D + d) * kCodesPerVector);
          for (int64_t r = 0; r < kRows; ++r) {
            const VecD difference = c - rows[d * kRows + r];
            distance[r] += difference * difference;
          }
        }
        for (int64_t r = 0; r < kRows; ++r) {
          const VecI64 closer = distance[r] < nearest[r].distance;
          nearest[r].distance = closer ? distance[r] : nearest[r].distance;
          nearest[r].code = closer ? numbers : nearest[r].code;
        }
      }
      for (int64_t r = 0; r < count; ++r) code[group * kRows + r] = std::min(nearest[r].first(), K - 1);
    }
  });
}

// Each task owns a range of codes and scans all rows.
template <class T>
void code_sums(Cpu, T* count, T* sum, const T* z, const int64_t* code, int64_t N, int64_t K, int64_t D) {
  for (int64_t r = 0; r < N; ++r) {
    check(code[r] >= 0 && code[r] < K, "code_sums: code ", code[r], " is outside [0, ", K, ")");
  }
  const int64_t parts = std::min<int64_t>(std::max<int64_t>(1, (N + K) * D / cpu::kGrain), 8);
  parallel_ranges(K, (K + parts - 1) / parts, [&](int64_t begin, int64_t end) {
    std::fill(count + begin, count + end, T(0));
    std::fill(sum + begin * D, sum + end * D, T(0));
    for (int64_t r = 0; r < N; ++r) {
      const int64_t k = code[r];
      if (k < begin || k >= end) continue;
      count[k] += 1;
      for (int64_t d = 0; d < D; ++d) sum[k * D + d] += z[r * D + d];
    }
  });
}

template <class T>
void smallest_mask(Cpu, T* mask, const T* x, const int64_t* count, int64_t B, int64_t L) {
  parallel_ranges(B, cpu::row_grain(8 * L), [&](int64_t begin, int64_t end) {
    std::vector<int64_t> order(L);
    for (int64_t b = begin; b < end; ++b) {
      const T* row = x + b * L;
      const int64_t chosen = std::clamp<int64_t>(count[b], 0, L);
      std::iota(order.begin(), order.end(), 0);
      std::nth_element(order.begin(), order.begin() + chosen, order.end(),
                       [&](int64_t i, int64_t j) { return row[i] < row[j] || (row[i] == row[j] && i < j); });
      std::fill(mask + b * L, mask + (b + 1) * L, T(0));
      for (int64_t i = 0; i < chosen; ++i) mask[b * L + order[i]] = 1;
    }
  });
}

template <class T>
void sample_categorical(Cpu, int64_t* code, const T* prob, const T* u, int64_t N, int64_t K) {
  parallel_ranges(N, cpu::row_grain(K), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      double cumulative = 0;
      int64_t k = 0;
      while (k < K - 1 && (cumulative += prob[r * K + k]) < u[r]) ++k;
      code[r] = k;
    }
  });
}

template <class T>
void top_p(Cpu, T* y, const T* x, int64_t N, int64_t K, double p) {
  parallel_ranges(N, cpu::row_grain(8 * K), [&](int64_t begin, int64_t end) {
    std::vector<int64_t> order(K);
    std::vector<T> kept(K);
    for (int64_t r = begin; r < end; ++r) {
      const T* row = x + r * K;
      std::iota(order.begin(), order.end(), 0);
      // A heap: usually few of the largest are needed.
      const auto smaller = [&](int64_t i, int64_t j) { return row[i] < row[j] || (row[i] == row[j] && i > j); };
      std::make_heap(order.begin(), order.end(), smaller);
      int64_t left = K;
      double total = 0;
      while (left > 0 && (left == K || total < p)) {
        std::pop_heap(order.begin(), order.begin() + left, smaller);
        total += row[order[--left]];
      }
      std::fill(kept.begin(), kept.end(), T(0));
      for (int64_t i = left; i < K; ++i) kept[order[i]] = static_cast<T>(row[order[i]] / total);
      std::copy(kept.begin(), kept.end(), y + r * K);
    }
  });
}

#define ADDP_INSTANTIATE(T)                                                                  \
  template void nearest_codes(Cpu, int64_t*, const T*, const T*, int64_t, int64_t, int64_t); \
  template void code_sums(Cpu, T*, T*, const T*, const int64_t*, int64_t, int64_t, int64_t); \
  template void smallest_mask(Cpu, T*, const T*, const int64_t*, int64_t, int64_t);          \
  template void sample_categorical(Cpu, int64_t*, const T*, const T*, int64_t, int64_t);     \
  template void top_p(Cpu, T*, const T*, int64_t, int64_t, double);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
