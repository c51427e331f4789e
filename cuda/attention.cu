// Softmax attention on packed qkv as it lies, in tiles of 64 queries x 64 keys; no matrix of all scores exists.
//   forward   a block owns 64 queries of a head and up to 128 columns of o, and walks over the keys with the running
//             maximum and sum of the online softmax (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022).
//   backward  recomputes the probabilities from the saved log-sum-exp, once by a block for each 64 queries for dq, once
//   by
//             a block for each 64 keys for dk and dv (FlashAttention-2, Dao 2023): nobody adds to another's result.
// Heads wider than a block's columns take several blocks, each of which computes the scores anew.
#include "cuda/context.h"
#include "cuda/tile.cuh"
#include "tensor/dispatch.h"

namespace addp::kernel {
namespace {

// Summed elements per step of a product.
template <class T>
constexpr int kDepth = sizeof(T) == 4 ? 32 : 8;
// Quads of shared memory for the operands of a step: two of 64 transposed rows, or one of rows as they lie.
template <class T>
constexpr int kChunkQuads = 2 * kDepth<T>* kPaddedQuads;
constexpr int kWeightQuads = kTileSide * kPaddedQuads;

struct Heads {
  int64_t H;
  int L, Dh, tiles;
  bool causal, aligned;  // aligned: quads of a row may be read and written whole

  __device__ int64_t width() const { return H * Dh; }
  __device__ int64_t step() const { return 3 * width(); }
};

// Which head and which tile of its queries or keys a block has. Grid: (head, tile) x parts of the columns.
struct Block {
  int64_t head, image;
  int first, count;        // row of the tile, rows that exist
  int64_t packed, output;  // where rows of q and of o begin

  __device__ explicit Block(const Heads& s)
      : head(blockIdx.x / s.tiles),
        image(head / s.H),
        first(static_cast<int>(blockIdx.x % s.tiles) * kTileSide),
        count(s.L - first < kTileSide ? s.L - first : kTileSide),
        packed(image * s.L * s.step() + head % s.H * s.Dh),
        output(image * s.L * s.width() + head % s.H * s.Dh) {}
};

__device__ inline int smaller(int a, int b) { return a < b ? a : b; }

// to[k][row] = rows[row][first + k] for the kDepth columns from `first` on and 64 rows; 0 where there is none.
template <class T>
__device__ inline void load_transposed(Quad<T>* to, const T* rows, int64_t step, int count, int first, int columns) {
  for (int i = static_cast<int>(threadIdx.x); i < kDepth<T> * kTileQuads; i += kTileThreads) {
    const int k = i % kDepth<T>, quad = i / kDepth<T>;
    Quad<T> values;
    for (int e = 0; e < 4; ++e) {
      const bool exists = 4 * quad + e < count && first + k < columns;
      values.v[e] = exists ? rows[(4 * quad + e) * step + first + k] : T(0);
    }
    to[k * kPaddedQuads + quad] = values;
  }
}

// to[k][column] = rows[first + k][column] for kDepth rows and kQuads * 64 columns; 0 where there is none.
template <int kQuads, class T>
__device__ inline void load_rows(Quad<T>* to, const T* rows, int64_t step, int count, int first, int columns,
                                 bool aligned) {
  constexpr int kRow = 16 * kQuads;
  for (int i = static_cast<int>(threadIdx.x); i < kDepth<T> * kRow; i += kTileThreads) {
    const int k = first + i / kRow, column = i % kRow * 4;
    Quad<T> values{};
    if (k < count) {
      const T* from = rows + k * step + column;
      if (aligned && column < columns) {
        values = load_quad(from);
      } else if (!aligned) {
        for (int e = 0; e < 4; ++e) values.v[e] = column + e < columns ? from[e] : T(0);
      }
    }
    to[i] = values;
  }
}

// sum[r][c] += left row . right row over Dh. left, right: up to 64 rows, `*_step` apart.
template <class T>
__device__ inline void add_scores(T (&sum)[4][4], Quad<T>* chunk, const T* left, int64_t left_step, int left_count,
                                  const T* right, int64_t right_step, int right_count, int Dh) {
  for (int d = 0; d < Dh; d += kDepth<T>) {
    __syncthreads();
    load_transposed(chunk, left, left_step, left_count, d, Dh);
    load_transposed(chunk + kDepth<T> * kPaddedQuads, right, right_step, right_count, d, Dh);
    __syncthreads();
    multiply_tile<1, kDepth<T>>(sum, chunk, kPaddedQuads, chunk + kDepth<T> * kPaddedQuads, kPaddedQuads,
                                smaller(Dh - d, kDepth<T>));
  }
}

// sum[r][c] += sum over k < count of weights[k][r] * rows[k][c], for `columns` columns.
template <int kQuads, class T>
__device__ inline void add_mixed(T (&sum)[4][4 * kQuads], Quad<T>* chunk, const Quad<T>* weights, const T* rows,
                                 int64_t step, int count, int columns, bool aligned) {
  for (int k = 0; k < count; k += kDepth<T>) {
    __syncthreads();  // also: the weights are there
    load_rows<kQuads>(chunk, rows, step, count, k, columns, aligned);
    __syncthreads();
    multiply_tile<kQuads, kDepth<T>>(sum, weights + k * kPaddedQuads, kPaddedQuads, chunk, 16 * kQuads,
                                     smaller(count - k, kDepth<T>));
  }
}

// weights[column][row] = w[row][column], a tile that add_mixed sums over its columns.
template <class T>
__device__ inline void store_weights(Quad<T>* weights, const T (&w)[4][4]) {
  for (int c = 0; c < 4; ++c) {
    weights[(4 * tile_column() + c) * kPaddedQuads + tile_row()] = {{w[0][c], w[1][c], w[2][c], w[3][c]}};
  }
}

// rows[r][c] = sum[r][c] for `count` rows of `columns` columns.
template <int kQuads, class T>
__device__ inline void store_tile(T* rows, int64_t step, int count, int columns, const T (&sum)[4][4 * kQuads],
                                  bool aligned) {
  for (int r = 0; r < 4; ++r) {
    if (4 * tile_row() + r >= count) continue;
    for (int q = 0; q < kQuads; ++q) {
      const int column = 4 * (tile_column() + 16 * q);
      T* at = rows + (4 * tile_row() + r) * step + column;
      if (aligned && column < columns) {
        store_quad(at, Quad<T>{{sum[r][4 * q], sum[r][4 * q + 1], sum[r][4 * q + 2], sum[r][4 * q + 3]}});
      } else if (!aligned) {
        for (int e = 0; e < 4; ++e) {
          if (column + e < columns) at[e] = sum[r][4 * q + e];
        }
      }
    }
  }
}

__device__ inline bool is_hidden(const Heads& s, int query, int key) {
  return query >= s.L || key >= s.L || (s.causal && key > query);
}

// Over the 16 threads that share a row.
template <class T>
__device__ inline T row_max(T x) {
  for (int lanes = 8; lanes > 0; lanes /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, x, lanes);
    x = other > x ? other : x;
  }
  return x;
}
template <class T>
__device__ inline T row_sum(T x) {
  for (int lanes = 8; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
  return x;
}

template <class T, int kQuads>
__global__ void __launch_bounds__(kTileThreads, 1) attention_fwd_kernel(T* o, T* lse, const T* qkv, Heads s, T scale) {
  ADDP_MAX_THREADS(kTileThreads);
  ADDP_SHARED(Quad<T>, chunk, [kChunkQuads<T>]);
  ADDP_SHARED(Quad<T>, weights, [kWeightQuads]);
  const Block block(s);
  const int first_column = static_cast<int>(blockIdx.y) * 64 * kQuads;
  const int columns = smaller(s.Dh - first_column, 64 * kQuads);
  const T* q = qkv + block.packed + block.first * s.step();
  const T* k = qkv + block.packed + s.width();
  const T* v = k + s.width() + first_column;

  T sum[4][4 * kQuads] = {}, highest[4], total[4] = {};
  for (int r = 0; r < 4; ++r) highest[r] = -INFINITY;
  const int keys = s.causal ? block.first + block.count : s.L;
  for (int first = 0; first < keys; first += kTileSide) {
    const int count = smaller(keys - first, kTileSide);
    T w[4][4] = {};
    add_scores(w, chunk, q, s.step(), block.count, k + first * s.step(), s.step(), count, s.Dh);
    for (int r = 0; r < 4; ++r) {
      const int query = block.first + 4 * tile_row() + r;
      T top = -INFINITY;
      for (int c = 0; c < 4; ++c) {
        // Queries behind the last one see everything: their rows stay finite and are not written.
        const int key = first + 4 * tile_column() + c;
        w[r][c] = key >= keys || (s.causal && key > query) ? -INFINITY : w[r][c] * scale;
        top = w[r][c] > top ? w[r][c] : top;
      }
      top = row_max(top);
      const T before = highest[r];
      highest[r] = top > before ? top : before;  // finite from the first tile on, where every query sees key 0
      const T shrink = std::exp(before - highest[r]);
      total[r] *= shrink;
      for (int c = 0; c < 4 * kQuads; ++c) sum[r][c] *= shrink;
      for (int c = 0; c < 4; ++c) {
        w[r][c] = std::exp(w[r][c] - highest[r]);
        total[r] += w[r][c];
      }
    }
    store_weights(weights, w);
    add_mixed<kQuads>(sum, chunk, weights, v + first * s.step(), s.step(), count, columns, s.aligned);
  }
  for (int r = 0; r < 4; ++r) {
    total[r] = row_sum(total[r]);
    for (int c = 0; c < 4 * kQuads; ++c) sum[r][c] /= total[r];
    const int row = 4 * tile_row() + r;
    if (blockIdx.y == 0 && tile_column() == 0 && row < block.count) {
      lse[block.head * s.L + block.first + row] = highest[r] + std::log(total[r]);
    }
  }
  store_tile<kQuads>(o + block.output + block.first * s.width() + first_column, s.width(), block.count, columns, sum,
                     s.aligned);
}

// ---- Backward. With P the probabilities and S the scores before scaling:
//   dv = P^T do,  dP = do v^T,  dS = scale P (dP - delta) with delta = sum_d do o,  dq = dS k,  dk = dS^T q.

// delta[head, query], a warp each.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 1)
    attention_delta_kernel(T* delta, const T* d_o, const T* o, Heads s, int64_t rows) {
  ADDP_MAX_THREADS(kTileThreads);
  const int64_t row = int64_t{blockIdx.x} * (kTileThreads / kWarp) + threadIdx.x / kWarp;  // (image, query, head)
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  T sum = 0;
  for (int d = lane; d < s.Dh; d += 32) sum += d_o[row * s.Dh + d] * o[row * s.Dh + d];
  sum = warp_sum(sum);
  const int64_t image = row / s.H / s.L, query = row / s.H % s.L;
  if (lane == 0) delta[(image * s.H + row % s.H) * s.L + query] = sum;
}

template <class T, int kQuads>
__global__ void __launch_bounds__(kTileThreads, 1)
    attention_dq_kernel(T* dqkv, const T* d_o, const T* delta, const T* lse, const T* qkv, Heads s, T scale) {
  ADDP_MAX_THREADS(kTileThreads);
  ADDP_SHARED(Quad<T>, chunk, [kChunkQuads<T>]);
  ADDP_SHARED(Quad<T>, weights, [kWeightQuads]);
  const Block block(s);
  const int first_column = static_cast<int>(blockIdx.y) * 64 * kQuads;
  const int columns = smaller(s.Dh - first_column, 64 * kQuads);
  const T* q = qkv + block.packed + block.first * s.step();
  const T* k = qkv + block.packed + s.width();
  const T* d_rows = d_o + block.output + block.first * s.width();

  T sum[4][4 * kQuads] = {}, row_lse[4], row_delta[4];
  for (int r = 0; r < 4; ++r) {
    const int row = 4 * tile_row() + r;
    row_lse[r] = row < block.count ? lse[block.head * s.L + block.first + row] : T(0);
    row_delta[r] = row < block.count ? delta[block.head * s.L + block.first + row] : T(0);
  }
  const int keys = s.causal ? block.first + block.count : s.L;
  for (int first = 0; first < keys; first += kTileSide) {
    const int count = smaller(keys - first, kTileSide);
    const T* keys_at = k + first * s.step();
    T w[4][4] = {}, d_w[4][4] = {};
    add_scores(w, chunk, q, s.step(), block.count, keys_at, s.step(), count, s.Dh);
    add_scores(d_w, chunk, d_rows, s.width(), block.count, keys_at + s.width(), s.step(), count, s.Dh);
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < 4; ++c) {
        const bool hidden = is_hidden(s, block.first + 4 * tile_row() + r, first + 4 * tile_column() + c);
        const T p = hidden ? T(0) : std::exp(w[r][c] * scale - row_lse[r]);
        w[r][c] = p * (d_w[r][c] - row_delta[r]) * scale;
      }
    }
    store_weights(weights, w);
    add_mixed<kQuads>(sum, chunk, weights, keys_at + first_column, s.step(), count, columns, s.aligned);
  }
  store_tile<kQuads>(dqkv + block.packed + block.first * s.step() + first_column, s.step(), block.count, columns, sum,
                     s.aligned);
}

// A tile's rows are keys here, its columns queries.
template <class T, int kQuads>
__global__ void __launch_bounds__(kTileThreads, 1)
    attention_dkv_kernel(T* dqkv, const T* d_o, const T* delta, const T* lse, const T* qkv, Heads s, T scale) {
  ADDP_MAX_THREADS(kTileThreads);
  ADDP_SHARED(Quad<T>, chunk, [kChunkQuads<T>]);
  ADDP_SHARED(Quad<T>, weights, [kWeightQuads]);
  const Block block(s);
  const int first_column = static_cast<int>(blockIdx.y) * 64 * kQuads;
  const int columns = smaller(s.Dh - first_column, 64 * kQuads);
  const T* k = qkv + block.packed + s.width() + block.first * s.step();
  const T* v = k + s.width();

  T d_k[4][4 * kQuads] = {}, d_v[4][4 * kQuads] = {};
  for (int first = s.causal ? block.first : 0; first < s.L; first += kTileSide) {
    const int count = smaller(s.L - first, kTileSide);
    const T* q = qkv + block.packed + first * s.step();
    const T* d_rows = d_o + block.output + first * s.width();
    T w[4][4] = {}, d_w[4][4] = {};
    add_scores(w, chunk, k, s.step(), block.count, q, s.step(), count, s.Dh);
    add_scores(d_w, chunk, v, s.step(), block.count, d_rows, s.width(), count, s.Dh);
    for (int c = 0; c < 4; ++c) {
      const int query = first + 4 * tile_column() + c;
      const T query_lse = query < s.L ? lse[block.head * s.L + query] : T(0);
      const T query_delta = query < s.L ? delta[block.head * s.L + query] : T(0);
      for (int r = 0; r < 4; ++r) {
        const bool hidden = is_hidden(s, query, block.first + 4 * tile_row() + r);
        w[r][c] = hidden ? T(0) : std::exp(w[r][c] * scale - query_lse);
        d_w[r][c] = w[r][c] * (d_w[r][c] - query_delta) * scale;
      }
    }
    store_weights(weights, w);
    add_mixed<kQuads>(d_v, chunk, weights, d_rows + first_column, s.width(), count, columns, s.aligned);
    __syncthreads();  // the weights have been read
    store_weights(weights, d_w);
    add_mixed<kQuads>(d_k, chunk, weights, q + first_column, s.step(), count, columns, s.aligned);
  }
  T* to = dqkv + block.packed + s.width() + block.first * s.step() + first_column;
  store_tile<kQuads>(to, s.step(), block.count, columns, d_k, s.aligned);
  store_tile<kQuads>(to + s.width(), s.step(), block.count, columns, d_v, s.aligned);
}

// A row of dS sums to 0, hence so does dk over the keys. The sum is the gradient of the keys' bias, where rounding
// errors would be taken for a direction by an optimizer that normalises: dk is shifted to keep it at 0. A block has 32
// columns of a head and eight threads for each.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 1) attention_balance_kernel(T* dqkv, Heads s) {
  ADDP_MAX_THREADS(kTileThreads);
  constexpr int kShares = kTileThreads / 32;
  ADDP_SHARED(double, sums, [kTileThreads]);
  const int64_t head = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), share = thread / 32;
  const int column = static_cast<int>(blockIdx.y) * 32 + thread % 32;
  T* dk = dqkv + head / s.H * s.L * s.step() + s.width() + head % s.H * s.Dh + column;
  double sum = 0;
  for (int key = share; column < s.Dh && key < s.L; key += kShares) sum += dk[key * s.step()];
  sums[thread] = sum;
  __syncthreads();
  sum = 0;
  for (int i = 0; i < kShares; ++i) sum += sums[i * 32 + thread % 32];
  const T mean = static_cast<T>(sum / s.L);
  for (int key = share; column < s.Dh && key < s.L; key += kShares) dk[key * s.step()] -= mean;
}

Heads make_shape(int64_t B, int64_t L, int64_t H, int64_t Dh, bool causal, bool aligned) {
  constexpr int64_t kLimit = int64_t{1} << 30;
  check(L < kLimit && Dh < kLimit && B * H * L < kLimit, "attention on the device: too large, B = ", B, ", L = ", L,
        ", H = ", H, ", Dh = ", Dh);
  return {H,      static_cast<int>(L),   static_cast<int>(Dh), static_cast<int>(ceil_div(L, kTileSide)),
          causal, aligned && Dh % 4 == 0};
}

// Quads of columns per thread for wide heads: two only in float, whose accumulators are half as large.
template <class T>
constexpr int kWideQuads = sizeof(T) == 4 ? 2 : 1;
template <class T>
bool is_wide(int64_t Dh) {
  return kWideQuads<T> > 1 && Dh > 64;
}

}  // namespace

template <class T>
void attention_fwd(Cuda dev, T* o, T* lse, const T* qkv, int64_t B, int64_t L, int64_t H, int64_t Dh, double scale,
                   bool causal) {
  if (B * L == 0) return;
  const Heads s = make_shape(B, L, H, Dh, causal, addp::kernel::aligned(o, qkv));
  const bool wide = is_wide<T>(Dh);
  launch(wide ? attention_fwd_kernel<T, kWideQuads<T>> : attention_fwd_kernel<T, 1>,
         {grid_of(B * H * s.tiles, ceil_div(Dh, wide ? 128 : 64)), kTileThreads, 0, dev.stream}, o, lse, qkv, s,
         static_cast<T>(scale));
}

template <class T>
void attention_bwd(Cuda dev, T* dqkv, const T* d_o, const T* o, const T* lse, const T* qkv, int64_t B, int64_t L,
                   int64_t H, int64_t Dh, double scale, bool causal) {
  if (B * L == 0) return;
  const bool quads = addp::kernel::aligned(dqkv, d_o, qkv);
  const Heads s = make_shape(B, L, H, Dh, causal, quads);
  const int64_t rows = B * L * H;
  const Scratch scratch(dev, rows * static_cast<int64_t>(sizeof(T)));
  T* delta = scratch.as<T>();
  launch(attention_delta_kernel<T>, {grid_of(ceil_div(rows, kTileThreads / 32)), kTileThreads, 0, dev.stream}, delta,
         d_o, o, s, rows);
  const bool wide = is_wide<T>(Dh);
  const Dims dims{grid_of(B * H * s.tiles, ceil_div(Dh, wide ? 128 : 64)), kTileThreads, 0, dev.stream};
  launch(wide ? attention_dq_kernel<T, kWideQuads<T>> : attention_dq_kernel<T, 1>, dims, dqkv, d_o, delta, lse, qkv, s,
         static_cast<T>(scale));
  launch(wide ? attention_dkv_kernel<T, kWideQuads<T>> : attention_dkv_kernel<T, 1>, dims, dqkv, d_o, delta, lse, qkv,
         s, static_cast<T>(scale));
  launch(attention_balance_kernel<T>, {grid_of(B * H, ceil_div(Dh, 32)), kTileThreads, 0, dev.stream}, dqkv, s);
}

#define INSTANTIATE(T)                                                                                              \
  template void attention_fwd(Cuda, T*, T*, const T*, int64_t, int64_t, int64_t, int64_t, double, bool);            \
  template void attention_bwd(Cuda, T*, const T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, int64_t, \
                              double, bool);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace addp::kernel
