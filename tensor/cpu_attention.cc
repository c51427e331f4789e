// Softmax attention, one task per image and head, on packed qkv as it lies. Work goes by panels of queries with one
// query per vector lane: scores are S^T [keys, queries], so the softmax runs down columns without horizontal sums and
// masks, and S^T is at once the packed operand of O^T = V^T S^T, whose other operand, V, needs no packing at all.
// Backward recomputes P^T from the saved log-sum-exp, panel by panel.
#include <algorithm>
#include <cmath>

#include "tensor/cpu_math.h"
#include "tensor/cpu_tile.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {
namespace {

using cpu::ceil_div;
using cpu::kLanes;
using cpu::kPanelCols;
using cpu::kPanelRows;
using cpu::kTileRows;
using cpu::Part;
using cpu::Vec;

constexpr double kMasked = -1e30;

template <class T>
inline Vec<T> get(const T* p) {
  return cpu::load<T>(p, cpu::AllLanes<T>{});
}
template <class T>
inline void put(T* p, Vec<T> v) {
  cpu::store<T>(p, cpu::AllLanes<T>{}, v);
}

// One head of one image. Rows of q, k, v are `step` apart, those of o `width`.
template <class T>
struct Head {
  int64_t L, Dh, H, b, h;
  T scale;
  bool causal;

  int64_t width() const { return H * Dh; }
  int64_t step() const { return 3 * width(); }
  int64_t packed_offset(int64_t which) const { return b * L * step() + which * width() + h * Dh; }
  int64_t output_offset() const { return b * L * width() + h * Dh; }
  int64_t statistics_offset() const { return (b * H + h) * L; }
  int64_t tiles() const { return ceil_div(L, kTileRows); }
  Part tile(int64_t t) const { return Part(L, tiles(), t); }
  int64_t packed_size() const { return tiles() * Dh * kPanelRows<T>; }

  // The rows of k or v, tile by tile, to be left operands of products over Dh.
  void pack(T* to, const T* rows) const {
    for (int64_t t = 0; t < tiles(); ++t) {
      const Part part = tile(t);
      cpu::transpose<true>(to + t * Dh * kPanelRows<T>, kPanelRows<T>, rows + part.begin * step(), step(), part.size,
                           Dh);
    }
  }

  // scores[key, query] = row of `packed` . column of `columns` [Dh, kPanelCols], for the first `keys` keys or more.
  void score(T* scores, const T* packed, const T* columns, int64_t keys, int64_t queries) const {
    for (int64_t t = 0; t < tiles() && tile(t).begin < keys; ++t) {
      const Part part = tile(t);
      cpu::multiply_tile(scores + part.begin * kPanelCols<T>, kPanelCols<T>, packed + t * Dh * kPanelRows<T>,
                         {Dh, kPanelRows<T>}, columns, part.size, queries, false);
    }
  }

  // to^T [Dh, kPanelCols] = rows^T weights. rows: [keys, Dh], `step` apart; weights: [keys, kPanelCols].
  void mix(T* to, const T* rows, const T* weights, int64_t keys, int64_t queries) const {
    const int64_t n = ceil_div(Dh, kTileRows);
    for (int64_t t = 0; t < n; ++t) {
      const Part part(Dh, n, t);
      cpu::multiply_tile(to + part.begin * kPanelCols<T>, kPanelCols<T>, rows + part.begin, {keys, step()}, weights,
                         part.size, queries, false);
    }
  }

  // Number of keys that the queries [first, first + queries) see together.
  int64_t visible(int64_t first, int64_t queries) const { return causal ? first + queries : L; }

  // Lanes of query `first` + i that may not see `key` are all ones.
  auto hidden(int64_t key, int64_t first) const {
    using Mask = typename cpu::VecOf<T>::mask;
    Mask query;
    for (int64_t i = 0; i < kLanes<T>; ++i) query[i] = first + i;
    return query < static_cast<cpu::ElementOf<Mask>>(key);
  }
};

// In place, over one vector of queries (column of `scores`): scores to exp(scale s - max). Returns max and sum.
template <class T>
std::pair<Vec<T>, Vec<T>> exponentials(T* scores, const Head<T>& head, int64_t keys, int64_t first) {
  Vec<T> highest = cpu::splat(T(kMasked)), sum = {};
  for (int64_t j = 0; j < keys; ++j) {
    Vec<T> s = get(scores + j * kPanelCols<T>) * head.scale;
    if (head.causal && j > first) s = head.hidden(j, first) ? cpu::splat(T(kMasked)) : s;
    put(scores + j * kPanelCols<T>, s);
    highest = s > highest ? s : highest;
  }
  for (int64_t j = 0; j < keys; ++j) {
    const Vec<T> e = cpu::exp(get(scores + j * kPanelCols<T>) - highest);
    put(scores + j * kPanelCols<T>, e);
    sum += e;
  }
  return {highest, sum};
}

template <class T>
void forward_head(T* o, T* lse, const T* qkv, const Head<T>& head) {
  const int64_t L = head.L, Dh = head.Dh;
  const T *q = qkv + head.packed_offset(0), *k = qkv + head.packed_offset(1), *v = qkv + head.packed_offset(2);
  T* packed_k = cpu::scratch<T>(cpu::Slot::task, head.packed_size() + (L + 2 * Dh) * kPanelCols<T>);
  T* scores = packed_k + head.packed_size();
  T* columns = scores + L * kPanelCols<T>;
  T* mixed = columns + Dh * kPanelCols<T>;
  head.pack(packed_k, k);
  for (int64_t first = 0; first < L; first += kPanelCols<T>) {
    const int64_t queries = std::min<int64_t>(kPanelCols<T>, L - first), keys = head.visible(first, queries);
    const int64_t whole = ceil_div(queries, kLanes<T>) * kLanes<T>;
    cpu::transpose<true>(columns, kPanelCols<T>, q + first * head.step(), head.step(), queries, Dh);
    head.score(scores, packed_k, columns, keys, whole);
    Vec<T> inverse[kPanelCols<T> / kLanes<T>];
    for (int64_t i = 0; i < whole; i += kLanes<T>) {
      const auto [highest, sum] = exponentials(scores + i, head, keys, first + i);
      inverse[i / kLanes<T>] = T(1) / sum;
      for (int64_t l = 0; l < kLanes<T> && i + l < queries; ++l) {
        lse[head.statistics_offset() + first + i + l] = highest[l] + std::log(sum[l]);
      }
    }
    head.mix(mixed, v, scores, keys, whole);
    for (int64_t d = 0; d < Dh; ++d) {
      for (int64_t i = 0; i < whole; i += kLanes<T>) {
        T* at = mixed + d * kPanelCols<T> + i;
        put(at, get(at) * inverse[i / kLanes<T>]);
      }
    }
    cpu::transpose<false>(o + head.output_offset() + first * head.width(), head.width(), mixed, kPanelCols<T>, Dh,
                          queries);
  }
}

// With P the probabilities and S the scores before scaling:
//   dv = P^T do,  dP = do v^T,  dS = scale P (dP - delta) with delta = sum_d do o,  dq = dS k,  dk = dS^T q.
template <class T>
struct BackwardHead {
  Head<T> head;
  T *packed_k, *packed_v, *p, *ds, *q_columns, *do_columns, *mixed, *p_rows, *ds_rows, *right;

  static int64_t rows_step(int64_t L) { return ceil_div(L, kLanes<T>) * kLanes<T>; }

  explicit BackwardHead(const Head<T>& head) : head(head) {
    const int64_t panel = kPanelCols<T>, L = head.L, Dh = head.Dh;
    const int64_t right_size = ceil_div(Dh, panel) * panel * panel;
    T* at = cpu::scratch<T>(cpu::Slot::task,
                            2 * head.packed_size() + (2 * L + 3 * Dh + 2 * rows_step(L)) * panel + right_size);
    const auto take = [&](int64_t n) { return std::exchange(at, at + n); };
    packed_k = take(head.packed_size()), packed_v = take(head.packed_size());
    p = take(L * panel), ds = take(L * panel);
    q_columns = take(Dh * panel), do_columns = take(Dh * panel), mixed = take(Dh * panel);
    p_rows = take(rows_step(L) * panel), ds_rows = take(rows_step(L) * panel);
    right = take(right_size);
  }

  // p and ds of one panel of queries from their scores (in p) and dP (in ds).
  void probabilities(const T* lse, const T* delta, int64_t first, int64_t keys, int64_t whole) const {
    for (int64_t i = 0; i < whole; i += kLanes<T>) {
      const Vec<T> l = get(lse + i), d = get(delta + i);
      for (int64_t j = 0; j < keys; ++j) {
        T *at_p = p + j * kPanelCols<T> + i, *at_ds = ds + j * kPanelCols<T> + i;
        Vec<T> e = cpu::exp(get(at_p) * head.scale - l);
        if (head.causal && j > first + i) e = head.hidden(j, first + i) ? Vec<T>{} : e;
        put(at_p, e);
        put(at_ds, e * (get(at_ds) - d) * head.scale);
      }
    }
  }

  // to [keys, Dh], `step` apart, += weights^T rows. weights: [queries, keys]; rows: [queries, Dh], `from_step` apart.
  void add_product(T* to, const T* weights, const T* rows, int64_t from_step, int64_t queries, int64_t keys) const {
    for (int64_t d = 0; d < head.Dh; d += kPanelCols<T>) {
      const int64_t cols = std::min<int64_t>(kPanelCols<T>, head.Dh - d);
      T* panel = right + d * kPanelCols<T>;
      cpu::copy_rows(panel, kPanelCols<T>, rows + d, from_step, queries, cols);
      const int64_t n = ceil_div(keys, kTileRows);
      for (int64_t t = 0; t < n; ++t) {
        const Part part(keys, n, t);
        cpu::multiply_tile(to + part.begin * head.step() + d, head.step(), weights + part.begin,
                           {queries, rows_step(head.L)}, panel, part.size, cols, true);
      }
    }
  }

  // A row of dS sums to 0, hence so does dk over the keys. The sum is the gradient of the keys' bias, where rounding
  // errors would be taken for a direction by an optimizer that normalises: dk, [L, Dh], is shifted to keep it at 0.
  void balance(T* dk) const {
    constexpr int64_t kColumns = 64;
    for (int64_t first = 0; first < head.Dh; first += kColumns) {
      const int64_t columns = std::min(kColumns, head.Dh - first);
      double sum[kColumns] = {};
      for (int64_t j = 0; j < head.L; ++j) {
        for (int64_t d = 0; d < columns; ++d) sum[d] += dk[j * head.step() + first + d];
      }
      T mean[kColumns];
      for (int64_t d = 0; d < columns; ++d) mean[d] = static_cast<T>(sum[d] / static_cast<double>(head.L));
      for (int64_t j = 0; j < head.L; ++j) {
        for (int64_t d = 0; d < columns; ++d) dk[j * head.step() + first + d] -= mean[d];
      }
    }
  }

  void run(T* dqkv, const T* d_o, const T* o, const T* lse, const T* qkv) const {
    const int64_t L = head.L, Dh = head.Dh, step = head.step(), width = head.width();
    const T *q = qkv + head.packed_offset(0), *k = qkv + head.packed_offset(1), *v = qkv + head.packed_offset(2);
    T *dq = dqkv + head.packed_offset(0), *dk = dqkv + head.packed_offset(1), *dv = dqkv + head.packed_offset(2);
    for (int64_t j = 0; j < L; ++j) {
      std::fill_n(dk + j * step, Dh, T(0));
      std::fill_n(dv + j * step, Dh, T(0));
    }
    head.pack(packed_k, k);
    head.pack(packed_v, v);
    for (int64_t first = 0; first < L; first += kPanelCols<T>) {
      const int64_t queries = std::min<int64_t>(kPanelCols<T>, L - first), keys = head.visible(first, queries);
      const int64_t whole = ceil_div(queries, kLanes<T>) * kLanes<T>;
      const T* d_rows = d_o + head.output_offset() + first * width;
      const T* o_rows = o + head.output_offset() + first * width;
      T row_lse[kPanelCols<T>] = {}, delta[kPanelCols<T>] = {};
      std::copy_n(lse + head.statistics_offset() + first, queries, row_lse);
      cpu::transpose<true>(q_columns, kPanelCols<T>, q + first * step, step, queries, Dh);
      cpu::transpose<true>(do_columns, kPanelCols<T>, d_rows, width, queries, Dh);
      cpu::transpose<true>(mixed, kPanelCols<T>, o_rows, width, queries, Dh);
      for (int64_t i = 0; i < Dh * kPanelCols<T>; ++i) delta[i % kPanelCols<T>] += do_columns[i] * mixed[i];
      head.score(p, packed_k, q_columns, keys, whole);
      head.score(ds, packed_v, do_columns, keys, whole);
      probabilities(row_lse, delta, first, keys, whole);
      head.mix(mixed, k, ds, keys, whole);
      cpu::transpose<false>(dq + first * step, step, mixed, kPanelCols<T>, Dh, queries);
      cpu::transpose<true>(p_rows, rows_step(L), p, kPanelCols<T>, keys, queries);
      cpu::transpose<true>(ds_rows, rows_step(L), ds, kPanelCols<T>, keys, queries);
      add_product(dv, p_rows, d_rows, width, queries, keys);
      add_product(dk, ds_rows, q + first * step, step, queries, keys);
    }
    balance(dk);
  }
};

}  // namespace

template <class T>
void attention_fwd(Cpu, T* o, T* lse, const T* qkv, int64_t B, int64_t L, int64_t H, int64_t Dh, double scale,
                   bool causal) {
  parallel_for(B * H, [&](int64_t task) {
    forward_head(o, lse, qkv, Head<T>{L, Dh, H, task / H, task % H, static_cast<T>(scale), causal});
  });
}

template <class T>
void attention_bwd(Cpu, T* dqkv, const T* d_o, const T* o, const T* lse, const T* qkv, int64_t B, int64_t L, int64_t H,
                   int64_t Dh, double scale, bool causal) {
  parallel_for(B * H, [&](int64_t task) {
    const Head<T> head{L, Dh, H, task / H, task % H, static_cast<T>(scale), causal};
    BackwardHead<T>(head).run(dqkv, d_o, o, lse, qkv);
  });
}

#define INSTANTIATE(T)                                                                                             \
  template void attention_fwd(Cpu, T*, T*, const T*, int64_t, int64_t, int64_t, int64_t, double, bool);            \
  template void attention_bwd(Cpu, T*, const T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, int64_t, \
                              double, bool);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
