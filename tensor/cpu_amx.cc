#include "tensor/cpu_amx.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tensor/error.h"

#if defined(__AMX_BF16__) && defined(__AVX512F__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>

#include "tensor/cpu_math.h"
#include "tensor/cpu_tile.h"
#include "tensor/parallel.h"

namespace addp::cpu {
namespace {

// A tile holds 16 rows of 64 bytes. In a left operand a row is one of A's, 32 steps of the sum long; in a right one
// it is a pair of steps, for 16 columns of B. Which steps are a pair is free as long as both sides agree: here s and
// s + 16 of each 32, for then two vectors of float32 make a row without any shuffling.
constexpr int64_t kSide = 16, kDepth = 32, kPieces = 3;
constexpr int64_t kTile = kSide * kSide;    // elements of 4 bytes in a tile
constexpr int64_t kStep = kPieces * kTile;  // in the pieces of 16 rows and 32 steps
constexpr int64_t kSharedBlocks = 204;      // packed blocks of pairs, of 6 KiB, that all tasks share: 1.2 MiB of L2's 2
constexpr int64_t kOwnPairs = 3;            // of a task's own, at most
constexpr int64_t kTasks = 4;               // at least
constexpr int64_t kShares = 8;              // at least, of a long sum
constexpr int64_t kShareBlocks = 32;        // of 32 steps, of a long sum that is cut into shares, at most

using Lanes = Register<float>;
typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));

// One operand: `count` rows of A or columns of B, and entry i of step k at data[i * stride + k], or, where a step's
// entries are adjacent, at data[k * stride + i].
struct Operand {
  const float* data;
  int64_t count, steps, stride;
  bool adjacent_steps;

  int64_t strips() const { return ceil_div(count, kSide); }
};

// A row of each of the three tiles of a block: numbers are cut into the nearest bfloat16 of what is left, three times.
[[gnu::always_inline]] inline void store_pieces(float* to, Lanes low, Lanes high) {
  constexpr uint32_t kUpper = 0xffff0000;
#pragma GCC unroll 3
  for (int64_t piece = 0; piece < kPieces; ++piece) {
    const uint32_t half = piece + 1 < kPieces ? 0x8000 : 0;  // the last is exact
    const Bits a = std::bit_cast<Bits>(low) + half, b = std::bit_cast<Bits>(high) + half;
    store_register(to + piece * kTile, std::bit_cast<Lanes>((a >> 16) | (b & kUpper)));
    low -= std::bit_cast<Lanes>(a & kUpper);
    high -= std::bit_cast<Lanes>(b & kUpper);
  }
}

// Packs `strips` strips of 16 rows or columns from `first` on, steps [begin, begin + depth) of the sum, as [strip,
// block of 32 steps, piece, tile]. What is missing in the last of either is 0. Loops go along the operand's lines in
// memory.
struct Packing {
  const Operand& from;
  int64_t first, strips, begin, depth;
  float* to;

  int64_t blocks() const { return ceil_div(depth, kDepth); }
  float* at(int64_t strip, int64_t block) const { return to + (strip * blocks() + block) * kStep; }

  // 16 numbers that are adjacent in memory, from entry i of step k on.
  Lanes part(int64_t i, int64_t k) const {
    const int64_t steps = begin + depth - k, entries = from.count - i;
    if (steps <= 0 || entries <= 0) return Lanes{};
    const float* p = from.data + (from.adjacent_steps ? i * from.stride + k : k * from.stride + i);
    const int64_t lanes = from.adjacent_steps ? steps : entries;
    return lanes >= kSide ? load_register(p) : Lanes(load<float>(p, lanes));
  }
  // Both halves of a block whose lines lie across the tile's.
  void transpose_block(int64_t strip, int64_t block) const {
    const int64_t i = (first + strip) * kSide, k = begin + block * kDepth;
    Lanes half[2][kSide];
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t r = 0; r < kSide; ++r) {
        half[h][r] = from.adjacent_steps ? part(i + r, k + h * kSide) : part(i, k + h * kSide + r);
      }
      detail::transpose_square<float, kSide / 2>(half[h]);
    }
    for (int64_t r = 0; r < kSide; ++r) store_pieces(at(strip, block) + r * kSide, half[0][r], half[1][r]);
  }

  void left() const {
    if (!from.adjacent_steps) {
      for (int64_t b = 0; b < blocks(); ++b) {
        for (int64_t s = 0; s < strips; ++s) transpose_block(s, b);
      }
      return;
    }
    for (int64_t r = 0; r < strips * kSide; ++r) {
      const int64_t i = first * kSide + r, whole = i < from.count ? depth / kDepth : 0;
      const float* p = from.data + i * from.stride + begin;
      float* row = at(r / kSide, 0) + r % kSide * kSide;
      for (int64_t b = 0; b < whole; ++b, p += kDepth, row += kStep) {
        store_pieces(row, load_register(p), load_register(p + kSide));
      }
      for (int64_t b = whole; b < blocks(); ++b, row += kStep) {
        store_pieces(row, part(i, begin + b * kDepth), part(i, begin + b * kDepth + kSide));
      }
    }
  }
  void right() const {
    if (from.adjacent_steps) {
      for (int64_t s = 0; s < strips; ++s) {
        for (int64_t b = 0; b < blocks(); ++b) transpose_block(s, b);
      }
      return;
    }
    for (int64_t r = 0; r < blocks() * kSide; ++r) {
      const int64_t i = first * kSide, k = begin + r / kSide * kDepth + r % kSide;
      const int64_t whole = k + kSide < begin + depth ? std::min(strips, (from.count - i) / kSide) : 0;
      const float *p = from.data + k * from.stride + i, *q = p + kSide * from.stride;
      float* row = at(0, r / kSide) + r % kSide * kSide;
      for (int64_t s = 0; s < whole; ++s, p += kSide, q += kSide, row += blocks() * kStep) {
        store_pieces(row, load_register(p), load_register(q));
      }
      for (int64_t s = whole; s < strips; ++s, row += blocks() * kStep) {
        store_pieces(row, part(i + s * kSide, k), part(i + s * kSide, k + kSide));
      }
    }
  }
};

// Eight tiles, all of them whole, as the processor reads it.
struct alignas(64) Layout {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr Layout kLayout;

// The tile unit is set up while this lives.
class TileUnit {
 public:
  TileUnit() { _tile_loadconfig(&kLayout); }
  ~TileUnit() { _tile_release(); }
  TileUnit(const TileUnit&) = delete;
};

// The intrinsics want the numbers of their tiles as literals. Tiles 0 to 3 are the sums, 4 and 5 of the left operand,
// 6 and 7 of the right one.
template <int rows, int cols, int left_piece, int right_piece, bool load_left, bool load_right>
[[gnu::always_inline]] inline void add_products(const float* const (&left)[2], const float* const (&right)[2]) {
  if constexpr (load_left) {
    _tile_loadd(4, left[0] + left_piece * kTile, 64);
    if constexpr (rows == 2) _tile_loadd(5, left[1] + left_piece * kTile, 64);
  }
  if constexpr (load_right) {
    _tile_loadd(6, right[0] + right_piece * kTile, 64);
    if constexpr (cols == 2) _tile_loadd(7, right[1] + right_piece * kTile, 64);
  }
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (cols == 2) _tile_dpbf16ps(1, 4, 7);
  if constexpr (rows == 2) _tile_dpbf16ps(2, 5, 6);
  if constexpr (rows == 2 && cols == 2) _tile_dpbf16ps(3, 5, 7);
}

// c, of up to 2 x 2 tiles, = the product of packed strips over `blocks` blocks of 32 steps, + bias where there is one.
template <int rows, int cols>
void product(float* c, int64_t ldc, const float* left0, const float* left1, const float* right0, const float* right1,
             int64_t blocks, const float* bias) {
  asm volatile("" ::: "memory");  // the intrinsics do not say what memory they read
  float* const c1 = c + kSide * ldc;
  const int64_t bytes = ldc * static_cast<int64_t>(sizeof(float));
  if (bias == nullptr) {
    _tile_zero(0);
    if constexpr (cols == 2) _tile_zero(1);
    if constexpr (rows == 2) _tile_zero(2);
    if constexpr (rows == 2 && cols == 2) _tile_zero(3);
  } else {
    _tile_loadd(0, bias, 0);  // the same in every row
    if constexpr (cols == 2) _tile_loadd(1, bias + kSide, 0);
    if constexpr (rows == 2) _tile_loadd(2, bias, 0);
    if constexpr (rows == 2 && cols == 2) _tile_loadd(3, bias + kSide, 0);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const float* const left[2] = {left0 + b * kStep, left1 + b * kStep};
    const float* const right[2] = {right0 + b * kStep, right1 + b * kStep};
    // Small terms first; neighbours share an operand.
    add_products<rows, cols, 2, 0, true, true>(left, right);
    add_products<rows, cols, 1, 0, true, false>(left, right);
    add_products<rows, cols, 1, 1, false, true>(left, right);
    add_products<rows, cols, 0, 1, true, false>(left, right);
    add_products<rows, cols, 0, 2, false, true>(left, right);
    add_products<rows, cols, 0, 0, false, true>(left, right);
  }
  _tile_stored(0, c, bytes);
  if constexpr (cols == 2) _tile_stored(1, c + kSide, bytes);
  if constexpr (rows == 2) _tile_stored(2, c1, bytes);
  if constexpr (rows == 2 && cols == 2) _tile_stored(3, c1 + kSide, bytes);
}

// Asks for 32 x 32 numbers that will be written after the product that begins now.
inline void ask_for_result(float* c, int64_t ldc) {
  for (int64_t r = 0; r < 2 * kSide; ++r) {
    for (int64_t v = 0; v < 2 * kSide; v += kSide) ask_to_write(c + r * ldc + v, 0);
  }
}

struct Product {
  float* c;
  Operand a, b;
  const float* bias;
  bool accumulate;

  // Rows [i, i + 32) and columns [j, j + 32) of C, or as many as there are, from packed pairs of strips: the first or a
  // later chunk of the sum.
  void multiply(int64_t i, int64_t j, const float* left, const float* right, int64_t blocks, bool first) const {
    const int64_t height = std::min(2 * kSide, a.count - i), width = std::min(2 * kSide, b.count - j);
    const int rows = height > kSide ? 2 : 1, cols = width > kSide ? 2 : 1;
    const float *const left1 = left + blocks * kStep, *const right1 = right + blocks * kStep;
    const auto run =
        rows == 2 ? (cols == 2 ? product<2, 2> : product<2, 1>) : (cols == 2 ? product<1, 2> : product<1, 1>);
    const int64_t N = b.count;
    float* const to = c + i * N + j;
    const float* const row = first && bias != nullptr ? bias + j : nullptr;
    const bool add = accumulate || !first;
    ask_for_result(to, N);
    if (!add && height == rows * kSide && width == cols * kSide) {
      return run(to, N, left, left1, right, right1, blocks, row);
    }
    // Sums of chunks meet in C, and what is ragged goes by way of whole tiles.
    alignas(64) float whole[4 * kTile];
    run(whole, 2 * kSide, left, left1, right, right1, blocks, nullptr);
    for (int64_t r = 0; r < height; ++r) {
      for_vectors<float>(width, [&](int64_t x, auto lanes) {
        Vec<float> sum = load<float>(whole + r * 2 * kSide + x, lanes);
        if (row != nullptr) sum += load<float>(row + x, lanes);
        if (add) sum += load<float>(to + r * N + x, lanes);
        store<float>(to + r * N + x, lanes, sum);
      });
    }
  }

  // Where sums are long and C is small (gradients of weights): tasks share out the steps, so that each reads its own
  // rows of both operands, and their results meet at the end. How many shares; 0 where their results would be more to
  // write and read than the operands are.
  int64_t shares() const {
    const int64_t pairs = ceil_div(std::min(a.count, b.count), 2 * kSide), blocks = ceil_div(a.steps, kDepth);
    int64_t n = std::max({kShares, ceil_div(blocks, kShareBlocks), ceil_div(pairs * blocks, kSharedBlocks)});
    n += n % 2;
    return blocks >= 4 * n && n * a.count * b.count <= a.steps * (a.count + b.count) ? n : 0;
  }
  void run_by_steps(int64_t shares) const {
    const bool flip = b.count < a.count;  // results are then C's transpose: the longer operand wants the right side
    const Operand &narrow = flip ? b : a, &wide = flip ? a : b;
    const int64_t rows = ceil_div(narrow.count, 2 * kSide), cols = ceil_div(wide.count, 2 * kSide);  // in pairs
    const int64_t ld = cols * 2 * kSide, size = rows * 2 * kSide * ld;
    float* const partial = scratch<float>(Slot::shared, shares * size);
    parallel_for(shares, [&](int64_t share) {
      const Part mine(ceil_div(a.steps, kDepth), shares, share);
      const int64_t begin = mine.begin * kDepth, depth = std::min(mine.size * kDepth, a.steps - begin);
      const int64_t strip = mine.size * kStep, group = std::min(cols, kOwnPairs);
      float* const left = scratch<float>(Slot::task, 2 * (rows + group) * strip);
      float* const right = left + 2 * rows * strip;
      Packing{narrow, 0, 2 * rows, begin, depth, left}.left();
      const TileUnit unit;
      for (int64_t first = 0; first < cols; first += group) {
        const int64_t pairs = std::min(group, cols - first);
        Packing{wide, 2 * first, 2 * pairs, begin, depth, right}.right();
        for (int64_t p = 0; p < pairs; ++p) {
          for (int64_t i = 0; i < rows; ++i) {
            const float *const x = left + 2 * i * strip, *const y = right + 2 * p * strip;
            float* const to = partial + share * size + i * 2 * kSide * ld + (first + p) * 2 * kSide;
            ask_for_result(to, ld);
            product<2, 2>(to, ld, x, x + strip, y, y + strip, mine.size, nullptr);
          }
        }
      }
    });
    parallel_for(2 * rows, [&](int64_t i) {
      for (int64_t j = 0; j < 2 * cols; ++j) {
        Lanes square[kSide];
        for (int64_t r = 0; r < kSide; ++r) {
          const float* from = partial + (i * kSide + r) * ld + j * kSide;
          square[r] = load_register(from);
          for (int64_t n = 1; n < shares; ++n) square[r] += load_register(from + n * size);
        }
        if (flip) detail::transpose_square<float, kSide / 2>(square);
        const int64_t row = (flip ? j : i) * kSide, col = (flip ? i : j) * kSide;
        for (int64_t r = 0; r < std::min(kSide, a.count - row); ++r) {
          float* const to = c + (row + r) * b.count + col;
          const int64_t lanes = std::min(kSide, b.count - col);
          if (lanes <= 0) continue;
          if (bias != nullptr) square[r] += load<float>(bias + col, lanes);
          if (accumulate) square[r] += load<float>(to, lanes);
          store<float>(to, lanes, square[r]);
        }
      }
    });
  }

  // The longer operand is dealt out to tasks, which pack it for themselves; the other is packed once for all.
  void run() const {
    if (const int64_t n = shares(); n > 0) return run_by_steps(n);
    const bool by_rows = a.count >= b.count;
    const Operand &own = by_rows ? a : b, &shared = by_rows ? b : a;
    const int64_t shared_pairs = ceil_div(shared.count, 2 * kSide), own_pairs = ceil_div(own.count, 2 * kSide);
    // The sum in chunks of 256 to 512 steps, so that what is shared stays in the second-level cache.
    const int64_t depth_limit = std::clamp<int64_t>(kSharedBlocks / shared_pairs, 8, 16) * kDepth;
    const int64_t chunks = ceil_div(a.steps, depth_limit);
    const int64_t chunk = ceil_div(ceil_div(a.steps, chunks), kDepth) * kDepth;
    const int64_t groups = ceil_div(shared_pairs * (chunk / kDepth), kSharedBlocks);
    int64_t tasks = std::max(ceil_div(own_pairs, kOwnPairs), kTasks);
    tasks += tasks % 2;  // a few tasks should share out evenly
    for (int64_t begin = 0; begin < a.steps; begin += chunk) {
      const int64_t depth = std::min(chunk, a.steps - begin), blocks = ceil_div(depth, kDepth);
      const int64_t pair = 2 * blocks * kStep;  // floats of a packed pair of strips
      const auto pack = [&](float* to, const Operand& from, int64_t first, int64_t pairs, bool left) {
        const Packing packing{from, 2 * first, std::min(2 * pairs, from.strips() - 2 * first), begin, depth, to};
        left ? packing.left() : packing.right();
      };
      for (int64_t g = 0; g < groups; ++g) {
        const Part group(shared_pairs, groups, g);
        float* const packed = scratch<float>(Slot::shared, group.size * pair);
        parallel_for(group.size, [&](int64_t p) { pack(packed + p * pair, shared, group.begin + p, 1, !by_rows); });
        parallel_for(tasks, [&](int64_t task) {
          const Part mine(own_pairs, tasks, task);
          float* const packed_own = scratch<float>(Slot::task, mine.size * pair);
          pack(packed_own, own, mine.begin, mine.size, by_rows);
          const TileUnit unit;
          for (int64_t s = 0; s < group.size; ++s) {
            for (int64_t o = 0; o < mine.size; ++o) {
              const int64_t own_at = (mine.begin + o) * 2 * kSide, shared_at = (group.begin + s) * 2 * kSide;
              const float *const x = packed_own + o * pair, *const y = packed + s * pair;
              if (by_rows) multiply(own_at, shared_at, x, y, blocks, begin == 0);
              else multiply(shared_at, own_at, y, x, blocks, begin == 0);
            }
          }
        });
      }
    }
  }
};

bool allowed_by_system() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

void amx_multiply(float* C, const float* A, const float* B, const float* bias, int64_t M, int64_t N, int64_t K,
                  bool trans_a, bool trans_b, bool accumulate) {
  Product{C, {A, M, K, trans_a ? M : K, !trans_a}, {B, N, K, trans_b ? K : N, trans_b}, bias, accumulate}.run();
}

}  // namespace addp::cpu
#else
namespace addp::cpu {
namespace {

bool allowed_by_system() { return false; }

}  // namespace

void amx_multiply(float*, const float*, const float*, const float*, int64_t, int64_t, int64_t, bool, bool, bool) {
  fail(ErrorKind::runtime, "amx: not in this build");
}

}  // namespace addp::cpu
#endif

namespace addp::cpu {
namespace {

enum class Use { never, where_it_pays, always };

Use chosen_use() {
  const char* text = std::getenv("ADDP_AMX");
  const std::string choice = text == nullptr ? "" : text;
  check_as(ErrorKind::usage, choice.empty() || choice == "never" || choice == "always",
           "ADDP_AMX: expected never or always, found '", choice, "'");
  if (choice == "never" || !allowed_by_system()) return Use::never;
  return choice == "always" ? Use::always : Use::where_it_pays;
}

Use use() {
  static const Use use = chosen_use();
  return use;
}

}  // namespace

bool has_amx() { return use() != Use::never; }

bool amx_pays(int64_t M, int64_t N, int64_t K) {
  if (use() != Use::where_it_pays) return use() == Use::always;
  return std::min(M, N) >= 64 && std::max(M, N) >= 128 && K >= 64;
}

}  // namespace addp::cpu
