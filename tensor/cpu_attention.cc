// Softmax attention, one task per image and head, on packed qkv as it lies. Work goes by panels of queries with one
// query per vector lane: scores are S^T [keys, queries], so the softmax runs down columns without horizontal sums and
// masks, and S^T is at once the packed operand of O^T = V^T S^T, whose other operand, V, needs no packing at all.
// Backward recomputes P^T from the saved log-sum-exp, panel by panel. A few queries that are left behind the last panel
// (the one of a class token behind 64 or 256 patches) go one by one, with one key per vector lane.
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
using cpu::kTileRows;
using cpu::Part;
using cpu::Vec;

constexpr double kMasked = -1e30;
constexpr int64_t kFewQueries = 4;  // so many cost less one by one than as a panel

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
  int64_t B, L, Dh, H, b, h;
  T scale;
  bool causal;

  int64_t width() const { return H * Dh; }
  int64_t step() const { return 3 * width(); }
  int64_t packed_offset(int64_t which) const { return b * L * step() + which * width() + h * Dh; }
  int64_t output_offset() const { return b * L * width() + h * Dh; }
  int64_t statistics_offset() const { return (b * H + h) * L; }

  // Rows of the next head's q, k or v, which a task asks for early. Null behind the last head.
  const T* next(const T* qkv, int64_t which) const {
    const int64_t i = b * H + h + 1;
    return which > 2 || i == B * H ? nullptr
                                   : qkv + Head{B, L, Dh, H, i / H, i % H, scale, causal}.packed_offset(which);
  }
  void ask_for_row(const T* rows, int64_t i) const {
    for (int64_t d = 0; rows != nullptr && d < Dh; d += kLanes<T>) __builtin_prefetch(rows + i * step() + d);
  }

  // Rows of a result, `apart` from each other, that will be written.
  void ask_to_write(T* rows, int64_t apart, int64_t n) const {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t d = 0; d < Dh; d += kLanes<T>) cpu::ask_to_write(rows + i * apart + d, 0);
    }
  }

  // scores[key, query] = row of k or v . column of `columns` [Dh, kPanelCols], for the first `keys` keys.
  void score(T* scores, const T* rows, const T* columns, int64_t keys, int64_t queries) const {
    const int64_t n = ceil_div(keys, kTileRows);
    for (int64_t t = 0; t < n; ++t) {
      const Part part(keys, n, t);
      cpu::multiply_rows(scores + part.begin * kPanelCols<T>, kPanelCols<T>, rows + part.begin * step(), step(), Dh,
                         columns, part.size, queries, false);
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

  // Queries from here on go one by one.
  int64_t panels_end() const {
    const int64_t left = L % kPanelCols<T>;
    return left <= kFewQueries ? L - left : L;
  }

  // scores[key] = row of k or v . x [Dh], for the first `keys` keys; fills its last vector.
  void score_row(T* scores, const T* rows, const T* x, int64_t keys) const {
    for (int64_t first = 0; first < keys; first += kLanes<T>) {
      Vec<T> products[kLanes<T>] = {};
      cpu::for_vectors<T>(Dh, [&](int64_t i, auto lanes) {
        const Vec<T> part = cpu::load<T>(x + i, lanes);
#pragma GCC unroll 16
        for (int64_t j = 0; j < kLanes<T>; ++j)
          products[j] += cpu::load<T>(rows + std::min(first + j, keys - 1) * step() + i, lanes) * part;
      });
      put(scores + first, cpu::sums_of_registers<T>(products));
    }
  }
  int64_t row_size() const { return L + kLanes<T>; }

  // to [Dh] = sum over keys of weights[key] rows[key]. rows: [keys, Dh], `step` apart.
  void mix_row(T* to, const T* rows, const T* weights, int64_t keys) const {
    cpu::for_vectors<T>(Dh, [&](int64_t i, auto lanes) {
      Vec<T> sum = {};
      for (int64_t j = 0; j < keys; ++j) sum += cpu::load<T>(rows + j * step() + i, lanes) * weights[j];
      cpu::store<T>(to + i, lanes, sum);
    });
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

// In place, over one vector of queries (column of `scores`): scores to exp(s - max). Returns max and sum. Memory has
// nothing to do meanwhile: asks for the rows `ahead`.
template <class T>
std::pair<Vec<T>, Vec<T>> exponentials(T* scores, const Head<T>& head, int64_t keys, int64_t first, const T* ahead) {
  constexpr int64_t kChains = 4;  // maxima in flight
  const auto at = [&](int64_t j) { return scores + j * kPanelCols<T>; };
  for (int64_t j = first + 1; head.causal && j < keys; ++j) {
    put(at(j), head.hidden(j, first) ? cpu::splat(T(kMasked)) : get(at(j)));
  }
  Vec<T> highest[kChains], sum = {};
  for (Vec<T>& chain : highest) chain = get(at(0));
  const auto raise = [](Vec<T>& high, Vec<T> s) { high = s > high ? s : high; };
  int64_t j = 0;
  for (; j + kChains <= keys; j += kChains) {
    for (int64_t c = 0; c < kChains; ++c) raise(highest[c], get(at(j + c)));
  }
  for (; j < keys; ++j) raise(highest[0], get(at(j)));
  for (int64_t c = 1; c < kChains; ++c) raise(highest[0], highest[c]);
  for (j = 0; j < keys; ++j) {
    const Vec<T> e = cpu::exp_negative(get(at(j)) - highest[0]);
    put(at(j), e);
    sum += e;
    head.ask_for_row(ahead, j);
  }
  return {highest[0], sum};
}

// One query, keys in the lanes: scores [keys] to exp(s - max). Returns max and sum.
template <class T>
std::pair<T, T> exponentials_of_row(T* scores, int64_t keys) {
  Vec<T> highest = cpu::splat(scores[0]), sum = {};
  cpu::for_vectors<T>(keys, [&](int64_t i, auto lanes) {
    const Vec<T> s = cpu::keep<T>(get(scores + i), lanes, scores[0]);
    highest = s > highest ? s : highest;
  });
  const T high = cpu::max_lanes<T>(highest);
  cpu::for_vectors<T>(keys, [&](int64_t i, auto lanes) {
    const Vec<T> e = cpu::exp_negative(get(scores + i) - high);
    put(scores + i, e);
    sum += cpu::keep<T>(e, lanes);
  });
  return {high, cpu::sum_lanes<T>(sum)};
}

template <class T>
void forward_row(T* o, T* lse, const T* q, const T* k, const T* v, T* scores, const Head<T>& head, int64_t query) {
  const int64_t keys = head.visible(query, 1);
  head.score_row(scores, k, q, keys);
  for (int64_t j = 0; j < keys; ++j) scores[j] *= head.scale;
  const auto [highest, sum] = exponentials_of_row(scores, keys);
  *lse = highest + std::log(sum);
  for (int64_t j = 0; j < keys; ++j) scores[j] /= sum;
  head.mix_row(o, v, scores, keys);
}

template <class T>
void forward_head(T* o, T* lse, const T* qkv, const Head<T>& head) {
  const int64_t L = head.L, Dh = head.Dh;
  const T *q = qkv + head.packed_offset(0), *k = qkv + head.packed_offset(1), *v = qkv + head.packed_offset(2);
  T* scores = cpu::scratch<T>(cpu::Slot::task, (L + 2 * Dh) * kPanelCols<T> + head.row_size());
  T* columns = scores + L * kPanelCols<T>;
  T* mixed = columns + Dh * kPanelCols<T>;
  T* row = mixed + Dh * kPanelCols<T>;
  o += head.output_offset(), lse += head.statistics_offset();
  for (int64_t first = 0; first < head.panels_end(); first += kPanelCols<T>) {
    const int64_t queries = std::min<int64_t>(kPanelCols<T>, L - first), keys = head.visible(first, queries);
    const int64_t whole = ceil_div(queries, kLanes<T>) * kLanes<T>;
    head.ask_to_write(o + first * head.width(), head.width(), queries);
    cpu::transpose<true>(columns, kPanelCols<T>, q + first * head.step(), head.step(), queries, Dh);
    for (int64_t i = 0; i < Dh * kPanelCols<T>; ++i) columns[i] *= head.scale;
    head.score(scores, k, columns, keys, whole);
    Vec<T> inverse[kPanelCols<T> / kLanes<T>];
    for (int64_t i = 0; i < whole; i += kLanes<T>) {
      const auto [highest, sum] =
          exponentials(scores + i, head, keys, first + i, head.next(qkv, (first + i) / kLanes<T>));
      inverse[i / kLanes<T>] = T(1) / sum;
      cpu::store<T>(lse + first + i, std::min(kLanes<T>, queries - i), highest + cpu::log(sum));
    }
    head.mix(mixed, v, scores, keys, whole);
    for (int64_t d = 0; d < Dh; ++d) {
      for (int64_t i = 0; i < whole; i += kLanes<T>) {
        T* at = mixed + d * kPanelCols<T> + i;
        put(at, get(at) * inverse[i / kLanes<T>]);
      }
    }
    cpu::transpose<false>(o + first * head.width(), head.width(), mixed, kPanelCols<T>, Dh, queries);
  }
  for (int64_t i = head.panels_end(); i < L; ++i)
    forward_row(o + i * head.width(), lse + i, q + i * head.step(), k, v, row, head, i);
}

// With P the probabilities and S the scores before scaling:
//   dv = P^T do,  dP = do v^T,  dS = scale P (dP - delta) with delta = sum_d do o,  dq = dS k,  dk = dS^T q.
template <class T>
struct BackwardHead {
  Head<T> head;
  T *p, *ds, *q_columns, *do_columns, *mixed, *right;

  explicit BackwardHead(const Head<T>& head) : head(head) {
    const int64_t panel = kPanelCols<T>, L = head.L, Dh = head.Dh;
    const int64_t right_size = ceil_div(Dh, panel) * panel * panel, weights = L * panel + kLanes<T>;
    T* at = cpu::scratch<T>(cpu::Slot::task, 2 * weights + 3 * Dh * panel + right_size);
    const auto take = [&](int64_t n) { return std::exchange(at, at + n); };
    p = take(weights), ds = take(weights);
    q_columns = take(Dh * panel), do_columns = take(Dh * panel), mixed = take(Dh * panel);
    right = take(right_size);
  }

  // p and ds of one panel of queries from their scores (in p) and dP (in ds).
  void probabilities(const T* lse, const T* delta, int64_t first, int64_t keys, int64_t whole, const T* qkv) const {
    for (int64_t i = 0; i < whole; i += kLanes<T>) {
      const T* ahead = head.next(qkv, (first + i) / kLanes<T>);
      const Vec<T> l = get(lse + i), d = get(delta + i);
      for (int64_t j = 0; j < keys; ++j) {
        T *at_p = p + j * kPanelCols<T> + i, *at_ds = ds + j * kPanelCols<T> + i;
        Vec<T> e = cpu::exp_negative(get(at_p) * head.scale - l);
        if (head.causal && j > first + i) e = head.hidden(j, first + i) ? Vec<T>{} : e;
        put(at_p, e);
        put(at_ds, e * (get(at_ds) - d) * head.scale);
        head.ask_for_row(ahead, j);
      }
    }
  }

  // to [keys, Dh], `step` apart, (+)= weights rows. weights: [keys, kPanelCols]; rows: [queries, Dh], `from_step`
  // apart.
  void add_product(T* to, const T* weights, const T* rows, int64_t from_step, int64_t queries, int64_t keys,
                   bool accumulate) const {
    for (int64_t d = 0; d < head.Dh; d += kPanelCols<T>) {
      const int64_t cols = std::min<int64_t>(kPanelCols<T>, head.Dh - d);
      T* panel = right + d * kPanelCols<T>;
      cpu::copy_rows(panel, kPanelCols<T>, rows + d, from_step, queries, cols);
      const int64_t n = ceil_div(keys, kTileRows);
      for (int64_t t = 0; t < n; ++t) {
        const Part part(keys, n, t);
        cpu::multiply_rows(to + part.begin * head.step() + d, head.step(), weights + part.begin * kPanelCols<T>,
                           kPanelCols<T>, queries, panel, part.size, cols, accumulate);
      }
    }
  }

  // to [keys, Dh], `step` apart, += weights [keys] times x [Dh].
  void add_row(T* to, const T* weights, const T* x, int64_t keys) const {
    cpu::for_vectors<T>(head.Dh, [&](int64_t i, auto lanes) {
      const Vec<T> add = cpu::load<T>(x + i, lanes);
      for (int64_t j = 0; j < keys; ++j) {
        T* at = to + j * head.step() + i;
        cpu::store<T>(at, lanes, cpu::load<T>(at, lanes) + add * weights[j]);
      }
    });
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

  // delta of kLanes queries from their rows of do and o; where there are fewer, the last one's again.
  Vec<T> deltas(const T* d_o, const T* o, int64_t queries) const {
    Vec<T> products[kLanes<T>] = {};
    cpu::for_vectors<T>(head.Dh, [&](int64_t i, auto lanes) {
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes<T>; ++j) {
        const int64_t at = std::min(j, queries - 1) * head.width() + i;
        products[j] += cpu::load<T>(d_o + at, lanes) * cpu::load<T>(o + at, lanes);
      }
    });
    return cpu::sums_of_registers<T>(products);
  }

  // One query: rows of dq, do, o and q; lse of that query.
  void run_row(T* dq, T* dk, T* dv, const T* d_o, const T* o, T lse, const T* q, const T* k, const T* v,
               int64_t query) const {
    const int64_t keys = head.visible(query, 1);
    Vec<T> sum = {};
    cpu::for_vectors<T>(
        head.Dh, [&](int64_t i, auto lanes) { sum += cpu::load<T>(d_o + i, lanes) * cpu::load<T>(o + i, lanes); });
    const T delta = cpu::sum_lanes<T>(sum);
    head.score_row(p, k, q, keys);
    head.score_row(ds, v, d_o, keys);
    for (int64_t j = 0; j < keys; j += kLanes<T>) {
      const Vec<T> e = cpu::exp_negative(get(p + j) * head.scale - lse);
      put(p + j, e);
      put(ds + j, e * (get(ds + j) - delta) * head.scale);
    }
    head.mix_row(dq, k, ds, keys);
    add_row(dv, p, d_o, keys);
    add_row(dk, ds, q, keys);
  }

  void run(T* dqkv, const T* d_o, const T* o, const T* lse, const T* qkv) const {
    const int64_t L = head.L, Dh = head.Dh, step = head.step(), width = head.width();
    const T *q = qkv + head.packed_offset(0), *k = qkv + head.packed_offset(1), *v = qkv + head.packed_offset(2);
    T *dq = dqkv + head.packed_offset(0), *dk = dqkv + head.packed_offset(1), *dv = dqkv + head.packed_offset(2);
    d_o += head.output_offset(), o += head.output_offset(), lse += head.statistics_offset();
    // The first panel sees every key and writes every row of dk and dv, unless it is causal or there is none.
    const bool is_filled = head.causal || head.panels_end() == 0;
    for (int64_t j = 0; j < L && is_filled; ++j) {
      std::fill_n(dk + j * step, Dh, T(0));
      std::fill_n(dv + j * step, Dh, T(0));
    }
    for (int64_t first = 0; first < head.panels_end(); first += kPanelCols<T>) {
      const int64_t queries = std::min<int64_t>(kPanelCols<T>, L - first), keys = head.visible(first, queries);
      const int64_t whole = ceil_div(queries, kLanes<T>) * kLanes<T>;
      const T *d_rows = d_o + first * width, *o_rows = o + first * width;
      head.ask_to_write(dq + first * step, step, queries);
      T row_lse[kPanelCols<T>] = {}, delta[kPanelCols<T>];
      std::copy_n(lse + first, queries, row_lse);
      for (int64_t i = 0; i < whole; i += kLanes<T>)
        put(delta + i, deltas(d_rows + i * width, o_rows + i * width, queries - i));
      cpu::transpose<true>(q_columns, kPanelCols<T>, q + first * step, step, queries, Dh);
      cpu::transpose<true>(do_columns, kPanelCols<T>, d_rows, width, queries, Dh);
      head.score(p, k, q_columns, keys, whole);
      head.score(ds, v, do_columns, keys, whole);
      probabilities(row_lse, delta, first, keys, whole, qkv);
      head.mix(mixed, k, ds, keys, whole);
      cpu::transpose<false>(dq + first * step, step, mixed, kPanelCols<T>, Dh, queries);
      const bool accumulate = is_filled || first > 0;
      add_product(dv, p, d_rows, width, queries, keys, accumulate);
      add_product(dk, ds, q + first * step, step, queries, keys, accumulate);
    }
    for (int64_t i = head.panels_end(); i < L; ++i)
      run_row(dq + i * step, dk, dv, d_o + i * width, o + i * width, lse[i], q + i * step, k, v, i);
    balance(dk);
  }
};

}  // namespace

template <class T>
void attention_fwd(Cpu, T* o, T* lse, const T* qkv, int64_t B, int64_t L, int64_t H, int64_t Dh, double scale,
                   bool causal) {
  parallel_for(B * H, [&](int64_t task) {
    forward_head(o, lse, qkv, Head<T>{B, L, Dh, H, task / H, task % H, static_cast<T>(scale), causal});
  });
}

template <class T>
void attention_bwd(Cpu, T* dqkv, const T* d_o, const T* o, const T* lse, const T* qkv, int64_t B, int64_t L, int64_t H,
                   int64_t Dh, double scale, bool causal) {
  parallel_for(B * H, [&](int64_t task) {
    const Head<T> head{B, L, Dh, H, task / H, task % H, static_cast<T>(scale), causal};
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
