// Codebook and sampling kernels on the CPU: nearest codes, code statistics, masks, categorical draws, top-p.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/cpu_math.h"
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
using cpu::VecD;
using cpu::VecF;
using cpu::VecI32;

constexpr int64_t kRows = kPanelCols<float>;  // of z, whose scores are found together

// to[d * step + i] = from[i * D + d] as float, for i < rows <= step. room [rows, D].
template <class T>
void pack_rows(float* to, int64_t step, const T* from, int64_t rows, int64_t D, float* room) {
  for (int64_t i = 0; i < rows * D; ++i) room[i] = static_cast<float>(from[i]);
  cpu::transpose<true>(to, step, room, D, rows, D);
}

// The codebook for products in float32.
struct PackedCodes {
  int64_t tiles, D;
  std::vector<float> packed, half_squares;  // [tile, D, kPanelRows]; |c|^2 / 2
  double largest = 0;                       // |c|

  template <class T>
  PackedCodes(const T* codebook, int64_t K, int64_t D)
      : tiles(ceil_div(K, kTileRows)), D(D), packed(tiles * D * kPanelRows<float>), half_squares(K) {
    std::vector<double> squares(K);
    parallel_for(tiles, [&](int64_t t) {
      const Part codes(K, tiles, t);
      pack_rows(packed.data() + t * D * kPanelRows<float>, kPanelRows<float>, codebook + codes.begin * D, codes.size, D,
                cpu::scratch<float>(cpu::Slot::task, codes.size * D));
      for (int64_t k = codes.begin; k < codes.begin + codes.size; ++k) {
        squares[k] = cpu::sum_double(codebook + k * D, D, [](VecD v) { return v * v; });
        half_squares[k] = static_cast<float>(squares[k] / 2);
      }
    });
    for (double square : squares) largest = square > largest || square != square ? square : largest;  // NaN stays
    largest = std::sqrt(largest);
  }

  // score [K, kRows] = z.c of all codes. z: [D, kRows]
  void multiply(float* score, const float* z) const {
    for (int64_t t = 0; t < tiles; ++t) {
      const Part codes(static_cast<int64_t>(half_squares.size()), tiles, t);
      cpu::multiply_tile(score + codes.begin * kRows, kRows, packed.data() + t * D * kPanelRows<float>,
                         {D, kPanelRows<float>}, z, codes.size, kRows, false);
    }
  }
};

// Of a vector of rows, the least |c|^2 / 2 - z.c, the second least, and the code of the least.
struct Least {
  VecF best = cpu::splat<float>(std::numeric_limits<float>::infinity()), second = best;
  VecI32 code{};

  void add(VecF score, int32_t k) {
    const VecF larger = score < best ? best : score;
    second = larger < second ? larger : second;
    code = score < best ? k - VecI32{} : code;
    best = score < best ? score : best;
  }
};

template <class T>
double squared_distance(const T* z, const T* c, int64_t D) {
  VecD sum{};
  int64_t d = 0;
  for (; d + cpu::kLanes<double> <= D; d += cpu::kLanes<double>) {
    const VecD difference = cpu::load_double(z + d) - cpu::load_double(c + d);
    sum += difference * difference;
  }
  double distance = cpu::sum_lanes<double>(sum);
  for (; d < D; ++d) distance += (double(z[d]) - double(c[d])) * (double(z[d]) - double(c[d]));
  return distance;
}

// Twice the error of a score, for a z of this length (a sum in float32): of |z||c|, 2^-24 for each of D fused sums,
// some more for conversions, |c|^2 / 2, |z| and the comparison; and what is lost where numbers or squares are too small
// to be normal. Infinite where scores may be.
float score_margin(double length, double largest, int64_t D) {
  const double terms = static_cast<double>(D), most = length + std::sqrt(terms) * 0x1p-60;
  const double size = most * largest + largest * largest;
  if (!(size < 0x1p120) || D > 1 << 16) return std::numeric_limits<float>::infinity();
  return static_cast<float>((2.02 * terms + 16) * (size * 0x1.04p-24 + (1 + most + largest) * 0x1p-120));
}

}  // namespace

// Nearest by the sum of squared differences in double, whatever T is, so float32 and float64 choose the same code.
// Found by scores |c|^2 / 2 - z.c in float32, on the register tile; where more than one lies within their rounding
// errors of the least, those are compared in double, and the first of equals counts.
template <class T>
void nearest_codes(Cpu, int64_t* code, const T* z, const T* codebook, int64_t N, int64_t K, int64_t D) {
  const PackedCodes codes(codebook, K, D);
  parallel_for(ceil_div(N, kRows), [&](int64_t task) {
    constexpr int64_t n = cpu::kLanes<float>;
    const int64_t first = task * kRows, rows = std::min(kRows, N - first);
    float* panel = cpu::scratch<float>(cpu::Slot::task, 2 * D * kRows + K * kRows);
    float* score = panel + D * kRows;
    pack_rows(panel, kRows, z + first * D, rows, D, score);
    codes.multiply(score, panel);
    for (int64_t i = 0; i < rows; i += n) {
      Least least;
      for (int64_t k = 0; k < K; ++k) {
        least.add(codes.half_squares[k] - cpu::load(score + k * kRows + i, cpu::AllLanes<float>{}),
                  static_cast<int32_t>(k));
      }
      VecF squares{};
      for (int64_t d = 0; d < D; ++d) {
        const VecF v = cpu::load(panel + d * kRows + i, cpu::AllLanes<float>{});
        squares += v * v;
      }
      for (int64_t l = 0; l < std::min(n, rows - i); ++l) {
        const float limit = least.best[l] + score_margin(std::sqrt(squares[l]), codes.largest, D);
        int64_t found = least.code[l];
        if (!(least.second[l] > limit)) {
          double nearest = std::numeric_limits<double>::infinity();
          found = 0;
          for (int64_t k = 0; k < K; ++k) {
            if (codes.half_squares[k] - score[k * kRows + i + l] > limit) continue;
            const double distance = squared_distance(z + (first + i + l) * D, codebook + k * D, D);
            if (distance < nearest) nearest = distance, found = k;
          }
        }
        code[first + i + l] = found;
      }
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
