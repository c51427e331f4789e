// Matrix products, convolutions, pooling, attention: gradients, determinism, and each against a plain computation.
#include <doctest/doctest.h>

#include <cmath>

#include "tensor/parallel.h"
#include "tensor/random.h"
#include "tests/check_op.h"

using namespace addp;

namespace {

Var random_var(const Shape& shape, uint64_t seed, DType dtype = DType::f64) {
  Rng rng(seed);
  return Var(rng.normal(shape, {dtype, Device::cpu}), true);
}

// Largest |a - b| relative to the largest |b|.
double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const std::vector<double> x = to_vector<double>(a), y = to_vector<double>(b);
  double error = 0, scale = 1e-30;
  for (size_t i = 0; i < x.size(); ++i) {
    REQUIRE(std::isfinite(x[i]));
    error = std::max(error, std::abs(x[i] - y[i]));
    scale = std::max(scale, std::abs(y[i]));
  }
  return error / scale;
}

// op(a) op(b) element by element.
Tensor plain_matmul(const Tensor& a, const Tensor& b, bool trans_a, bool trans_b) {
  const std::vector<double> x = to_vector<double>(a), y = to_vector<double>(b);
  const int64_t M = a.dim(trans_a ? 1 : 0), K = a.dim(trans_a ? 0 : 1), N = b.dim(trans_b ? 0 : 1);
  std::vector<double> c(M * N, 0.0);
  for (int64_t i = 0; i < M; ++i) {
    for (int64_t j = 0; j < N; ++j) {
      for (int64_t k = 0; k < K; ++k) {
        c[i * N + j] += x[trans_a ? k * M + i : i * K + k] * y[trans_b ? j * K + k : k * N + j];
      }
    }
  }
  return from_vector(c, {M, N});
}

// The convolution as its definition says.
Tensor plain_conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, int64_t stride, Padding p) {
  const std::vector<double> vx = to_vector<double>(x), vw = to_vector<double>(w), vb = to_vector<double>(bias);
  const int64_t B = x.dim(0), C = x.dim(1), H = x.dim(2), W = x.dim(3), Co = w.dim(0), kh = w.dim(2), kw = w.dim(3);
  const int64_t Ho = (H + p.top + p.bottom - kh) / stride + 1, Wo = (W + p.left + p.right - kw) / stride + 1;
  std::vector<double> y;
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t o = 0; o < Co; ++o) {
      for (int64_t i = 0; i < Ho * Wo; ++i) {
        double sum = vb[o];
        for (int64_t c = 0; c < C; ++c) {
          for (int64_t t = 0; t < kh * kw; ++t) {
            const int64_t iy = i / Wo * stride + t / kw - p.top, ix = i % Wo * stride + t % kw - p.left;
            if (iy < 0 || iy >= H || ix < 0 || ix >= W) continue;
            sum += vx[((b * C + c) * H + iy) * W + ix] * vw[(o * C + c) * kh * kw + t];
          }
        }
        y.push_back(sum);
      }
    }
  }
  return from_vector(y, {B, Co, Ho, Wo});
}

// Attention from simple ops; with a mask the scores of later keys become -1e9.
Var plain_attention(const Var& qkv, int64_t H, bool causal) {
  const int64_t B = qkv.dim(0), L = qkv.dim(1), D = qkv.dim(2) / 3, Dh = D / H;
  const auto part = [&](int64_t i) {
    const Var rows = reshape(slice(qkv, 2, i * D, (i + 1) * D), {B, L, H, Dh});
    return reshape(permute(rows, {0, 2, 1, 3}), {B * H, L, Dh});
  };
  Var scores = affine(matmul(part(0), part(1), false, true), 1 / std::sqrt(static_cast<double>(Dh)), 0);
  if (causal) {
    std::vector<double> mask;
    for (int64_t i = 0; i < L * L; ++i) mask.push_back(i % L > i / L ? -1e9 : 0);
    scores = add(scores, Var(to(from_vector(mask, {L, L}), qkv.options())));
  }
  const Var o = reshape(matmul(softmax(scores), part(2)), {B, H, L, Dh});
  return reshape(permute(o, {0, 2, 1, 3}), {B, L, D});
}

}  // namespace

TEST_CASE("matmul") {
  check_op({{3, 5}, {5, 4}}, [](auto& v) { return matmul(v[0], v[1]); });
  check_op({{5, 3}, {5, 4}}, [](auto& v) { return matmul(v[0], v[1], true); });
  check_op({{3, 5}, {4, 5}}, [](auto& v) { return matmul(v[0], v[1], false, true); });
  check_op({{5, 3}, {4, 5}}, [](auto& v) { return matmul(v[0], v[1], true, true); });
  check_op({{2, 17, 3}, {2, 3, 35}}, [](auto& v) { return matmul(v[0], v[1]); });
  check_op({{2, 3, 17}, {2, 9, 3}}, [](auto& v) { return matmul(v[0], v[1], true, true); });
}

TEST_CASE("matmul: sizes around every block and tail, against the definition") {
  for (const auto& [M, N, K] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                   {1, 70, 530},
                                                                   {15, 33, 17},
                                                                   {29, 16, 1},
                                                                   {113, 65, 48},
                                                                   {240, 31, 37},
                                                                   {40, 530, 9},
                                                                   {14, 32, 1025},
                                                                   // rows of A a multiple of 4 KiB apart
                                                                   {31, 70, 1024},
                                                                   {240, 33, 1024}}) {
    for (int trans = 0; trans < 4; ++trans) {
      const bool ta = trans & 1, tb = trans & 2;
      INFO(M, " ", N, " ", K, " ", trans);
      for (DType dtype : {DType::f64, DType::f32}) {
        const Var a = random_var(ta ? Shape{K, M} : Shape{M, K}, 1, dtype);
        const Var b = random_var(tb ? Shape{N, K} : Shape{K, N}, 2, dtype);
        const Tensor expected = plain_matmul(a.value(), b.value(), ta, tb);
        CHECK(difference(matmul(a, b, ta, tb).value(), expected) < (dtype == DType::f64 ? 1e-13 : 1e-5));
      }
    }
  }
}

TEST_CASE("matmul: the same bits for any number of threads") {
  const Var a = random_var({500, 700}, 1, DType::f32), b = random_var({700, 300}, 2, DType::f32);
  const int before = num_threads();
  set_num_threads(1);
  const Tensor expected = matmul(a, b).value();
  for (int threads : {2, 3, 5}) {
    set_num_threads(threads);
    CHECK(same_bits(matmul(a, b).value(), expected));
  }
  set_num_threads(before);
}

TEST_CASE("matmul: wrong shapes throw") {
  CHECK_THROWS_AS(matmul(random_var({3, 5}, 1), random_var({4, 5}, 1)), Error);
  CHECK_THROWS_AS(matmul(random_var({2, 3, 5}, 1), random_var({3, 5, 4}, 1)), Error);
  CHECK_THROWS_AS(matmul(random_var({2, 3, 5}, 1), random_var({5, 4}, 1)), Error);
  CHECK_THROWS_AS(matmul(random_var({3}, 1), random_var({3}, 1)), Error);
}

TEST_CASE("linear") {
  check_op({{2, 3, 8}, {5, 8}, {5}}, [](auto& v) { return linear(v[0], v[1], v[2]); });
  check_op({{19, 7}, {37, 7}}, [](auto& v) { return linear(v[0], v[1]); });
  check_op({{8}, {5, 8}, {5}}, [](auto& v) { return linear(v[0], v[1], v[2]); });
  CHECK_THROWS_AS(linear(random_var({2, 7}, 1), random_var({5, 8}, 1)), Error);
  CHECK_THROWS_AS(linear(random_var({2, 8}, 1), random_var({5, 8}, 1), random_var({4}, 1)), Error);
}

TEST_CASE("linear: matmul and add") {
  const Var x = random_var({41, 600}, 1), w = random_var({77, 600}, 2), b = random_var({77}, 3);
  CHECK(difference(linear(x, w, b).value(), add(matmul(x, w, false, true), b).value()) < 1e-13);
}

TEST_CASE("conv2d") {
  const Padding same{1, 1, 1, 1};
  check_op({{2, 3, 5, 7}, {4, 3, 3, 3}, {4}}, [&](auto& v) { return conv2d(v[0], v[1], v[2], 1, same); });
  check_op({{1, 2, 6, 5}, {3, 2, 3, 3}}, [&](auto& v) { return conv2d(v[0], v[1], {}, 2, same); });
  check_op({{2, 2, 6, 6}, {3, 2, 3, 3}, {3}}, [](auto& v) { return conv2d(v[0], v[1], v[2], 2, {0, 0, 1, 1}); });
  check_op({{2, 5, 3, 3}, {4, 5, 1, 1}, {4}}, [](auto& v) { return conv2d(v[0], v[1], v[2], 1, {}); });
  check_op({{1, 2, 9, 8}, {2, 2, 4, 3}, {2}}, [](auto& v) { return conv2d(v[0], v[1], v[2], 3, {2, 1, 0, 2}); });
  check_op({{2, 2, 7, 5}, {3, 2, 2, 1}, {3}}, [](auto& v) { return conv2d(v[0], v[1], v[2], 3, {1, 0, 0, 0}); });
  check_op({{3, 1, 8, 8}, {2, 1, 4, 4}, {2}}, [](auto& v) { return conv2d(v[0], v[1], v[2], 4, {}); });
}

TEST_CASE("conv2d: sizes around every block and tail, against the definition") {
  struct Case {
    Shape x, weight;
    int64_t stride;
    Padding padding;
  };
  for (const Case& c : std::vector<Case>{{{2, 3, 32, 32}, {33, 3, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{1, 17, 16, 16}, {15, 17, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{1, 20, 8, 8}, {31, 20, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{1, 5, 33, 37}, {6, 5, 3, 3}, 2, {0, 0, 1, 1}},
                                         {{1, 2, 4, 300}, {3, 2, 1, 7}, 1, {0, 3, 0, 3}},
                                         {{1, 2, 40, 3}, {3, 2, 5, 2}, 1, {4, 1, 4, 0}},
                                         {{2, 40, 5, 5}, {29, 40, 1, 1}, 1, {}},
                                         {{1, 19, 21, 17}, {15, 19, 1, 1}, 1, {}},
                                         {{9, 3, 7, 6}, {5, 3, 1, 1}, 2, {}},
                                         {{11, 6, 8, 8}, {7, 6, 4, 4}, 1, {1, 1, 1, 1}},
                                         {{9, 3, 10, 33}, {5, 3, 4, 4}, 2, {1, 1, 1, 1}},
                                         {{10, 3, 9, 40}, {5, 3, 3, 3}, 2, {0, 0, 1, 1}},
                                         {{1, 35, 9, 9}, {4, 35, 4, 4}, 2, {1, 1, 1, 1}},
                                         // vectors of a row, the last of which overlaps; few outputs; in phases
                                         {{2, 3, 19, 61}, {18, 3, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{2, 34, 21, 61}, {2, 34, 3, 3}, 1, {0, 2, 2, 1}},
                                         {{1, 5, 39, 61}, {17, 5, 4, 4}, 2, {1, 1, 1, 1}},
                                         {{2, 18, 30, 63}, {3, 18, 3, 5}, 2, {1, 0, 2, 3}},
                                         {{1, 4, 20, 93}, {5, 4, 4, 3}, 3, {1, 1, 1, 1}},
                                         {{2, 1, 10, 17}, {20, 1, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{2, 33, 12, 12}, {9, 33, 1, 1}, 1, {}},
                                         {{1, 9, 12, 12}, {33, 9, 1, 1}, 1, {}},
                                         // long products, in parts; the last vector of a row overlaps; bands of a row
                                         {{1, 70, 6, 64}, {9, 70, 4, 4}, 2, {1, 1, 1, 1}},
                                         {{1, 70, 4, 22}, {9, 70, 4, 4}, 2, {1, 1, 1, 1}},
                                         {{1, 70, 6, 46}, {9, 70, 4, 4}, 2, {1, 1, 1, 1}},
                                         {{1, 1100, 9, 16}, {7, 1100, 1, 1}, 1, {}},
                                         // 1x1: gradients of weights from parts of an image, and from some images
                                         {{1, 256, 43, 53}, {257, 256, 1, 1}, 1, {}},
                                         {{3, 230, 29, 31}, {290, 230, 1, 1}, 1, {}},
                                         // Winograd: bands of tile rows, one image a task, several images a task
                                         {{2, 17, 50, 61}, {18, 17, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{3, 16, 28, 30}, {31, 16, 3, 3}, 1, {2, 0, 1, 2}},
                                         {{15, 33, 12, 13}, {16, 33, 3, 3}, 1, {1, 1, 1, 1}},
                                         // few tiles of many channels
                                         {{1, 70, 15, 14}, {67, 70, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{5, 64, 11, 17}, {130, 64, 3, 3}, 1, {2, 0, 1, 2}},
                                         {{1, 129, 16, 13}, {64, 129, 3, 3}, 1, {0, 1, 2, 0}},
                                         // and vectors of images
                                         {{32, 16, 8, 8}, {17, 16, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{30, 16, 9, 11}, {18, 16, 3, 3}, 1, {2, 0, 1, 1}},
                                         {{16, 17, 8, 7}, {18, 17, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{16, 70, 8, 7}, {65, 70, 3, 3}, 1, {1, 1, 1, 1}},
                                         // few channels, in rows of whole tiles: vectors that reach into the next
                                         // row, bands, long rows, all heights of padding; channels in parts
                                         {{3, 3, 8, 8}, {5, 3, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{2, 3, 20, 44}, {7, 3, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{9, 3, 70, 36}, {9, 3, 3, 3}, 1, {0, 1, 2, 1}},
                                         {{1, 2, 9, 200}, {6, 2, 3, 3}, 1, {2, 1, 0, 1}},
                                         {{1, 1, 4, 1200}, {3, 1, 3, 3}, 1, {2, 1, 2, 1}},
                                         {{2, 70, 12, 40}, {2, 70, 3, 3}, 1, {1, 1, 1, 1}},
                                         {{3, 33, 9, 8}, {1, 33, 3, 3}, 1, {0, 1, 0, 1}},
                                         {{1, 7, 50, 28}, {3, 7, 3, 3}, 1, {1, 1, 1, 1}},
                                         // 4x4 of stride 2: vectors of tiles, odd sizes, vectors of images
                                         {{2, 17, 70, 66}, {18, 17, 4, 4}, 2, {2, 0, 1, 1}},
                                         {{3, 16, 57, 55}, {31, 16, 4, 4}, 2, {0, 2, 2, 1}},
                                         {{2, 19, 67, 68}, {16, 19, 4, 4}, 2, {1, 1, 1, 1}},
                                         {{16, 18, 24, 27}, {17, 18, 4, 4}, 2, {1, 1, 0, 0}}}) {
    INFO(c.x, " ", c.weight);
    const Var x = random_var(c.x, 1), w = random_var(c.weight, 2), b = random_var({c.weight[0]}, 3);
    const Var y = conv2d(x, w, b, c.stride, c.padding);
    CHECK(difference(y.value(), plain_conv2d(x.value(), w.value(), b.value(), c.stride, c.padding)) < 1e-13);
    // <conv(x', w), r> is linear in x' and in w, so gradients follow from values.
    const Var r = random_var(y.shape(), 4), x2 = random_var(c.x, 5), w2 = random_var(c.weight, 6);
    const Tensor dx = gradient(sum(mul(y, r)), x), dw = gradient(sum(mul(y, r)), w);
    const double through_x = sum(mul(conv2d(x2, w, {}, c.stride, c.padding), r)).item();
    const double through_w = sum(mul(conv2d(x, w2, {}, c.stride, c.padding), r)).item();
    CHECK(sum(mul(Var(dx), x2)).item() == doctest::Approx(through_x).epsilon(1e-10));
    CHECK(sum(mul(Var(dw), w2)).item() == doctest::Approx(through_w).epsilon(1e-10));
  }
}

TEST_CASE("conv2d: float32, the same bits for any number of threads") {
  struct Case {
    Shape x, weight;
    int64_t stride;
  };
  // Winograd with vectors of tiles and of images, some empty, and with few tiles; direct, with bands of one image; few
  // channels; 1x1; strides of 2 directly and by Winograd's method
  for (const Case& c : std::vector<Case>{{{1, 18, 50, 61}, {17, 18, 3, 3}, 1},
                                         {{30, 17, 12, 9}, {18, 17, 3, 3}, 1},
                                         {{1, 140, 16, 15}, {70, 140, 3, 3}, 1},
                                         {{1, 9, 40, 21}, {10, 9, 3, 3}, 1},
                                         {{3, 5, 16, 18}, {6, 5, 4, 4}, 2},
                                         {{2, 20, 33, 48}, {15, 20, 4, 4}, 2},
                                         {{1, 150, 20, 64}, {9, 150, 4, 4}, 2},
                                         {{2, 17, 69, 66}, {20, 17, 4, 4}, 2},
                                         {{32, 16, 20, 21}, {17, 16, 4, 4}, 2},
                                         {{16, 70, 8, 7}, {65, 70, 3, 3}, 1},
                                         {{5, 18, 20, 31}, {3, 18, 3, 3}, 1},
                                         {{9, 3, 40, 44}, {18, 3, 3, 3}, 1},
                                         {{3, 70, 36, 40}, {3, 70, 3, 3}, 1},
                                         {{3, 64, 20, 20}, {1030, 64, 1, 1}, 1}}) {
    INFO(c.x, " ", c.weight);
    const auto results = [&](DType dtype) {
      const Var x = random_var(c.x, 1, dtype), w = random_var(c.weight, 2, dtype);
      const int64_t p = c.weight[2] == 1 ? 0 : 1;
      const Var y = conv2d(x, w, {}, c.stride, {p, p, p, p});
      const Var loss = sum(mul(y, random_var(y.shape(), 3, dtype)));
      return std::vector<Tensor>{y.value(), gradient(loss, x), gradient(loss, w)};
    };
    const int before = num_threads();
    set_num_threads(1);
    const std::vector<Tensor> expected = results(DType::f64), single = results(DType::f32);
    for (size_t i = 0; i < single.size(); ++i) CHECK(difference(single[i], expected[i]) < 1e-5);
    for (int threads : {2, 5}) {
      set_num_threads(threads);
      const std::vector<Tensor> found = results(DType::f32);
      for (size_t i = 0; i < single.size(); ++i) CHECK(same_bits(found[i], single[i]));
    }
    set_num_threads(before);
  }
}

TEST_CASE("conv2d: wrong shapes throw") {
  const Var x = random_var({1, 3, 5, 5}, 1), w = random_var({4, 3, 3, 3}, 2);
  CHECK_THROWS_AS(conv2d(x, random_var({4, 2, 3, 3}, 2), {}, 1, {}), Error);
  CHECK_THROWS_AS(conv2d(x, w, random_var({3}, 2), 1, {}), Error);
  CHECK_THROWS_AS(conv2d(x, w, {}, 0, {}), Error);
  CHECK_THROWS_AS(conv2d(x, w, {}, 1, {3, 0, 0, 0}), Error);
  CHECK_THROWS_AS(conv2d(random_var({1, 3, 2, 5}, 1), w, {}, 1, {}), Error);
  CHECK_THROWS_AS(conv2d(random_var({3, 5, 5}, 1), w, {}, 1, {}), Error);
}

TEST_CASE("avg_pool") {
  check_op({{2, 3, 4, 6}}, [](auto& v) { return avg_pool(v[0], 2); });
  check_op({{1, 2, 7, 8}}, [](auto& v) { return avg_pool(v[0], 3); });
  CHECK(to_vector<double>(avg_pool(Var(from_vector<double>({1, 2, 3, 4, 5, 6, 7, 8}, {1, 1, 2, 4})), 2).value()) ==
        std::vector<double>{3.5, 5.5});
  CHECK_THROWS_AS(avg_pool(random_var({1, 1, 1, 4}, 1), 2), Error);
}

TEST_CASE("max_pool") {
  check_op({{2, 3, 4, 6}}, [](auto& v) { return max_pool(v[0], 2); });
  check_op({{1, 2, 7, 8}}, [](auto& v) { return max_pool(v[0], 3); });
  // The first of equal entries gets the gradient.
  Var x(from_vector<double>({5, 5, 5, 1}, {1, 1, 2, 2}), true);
  backward(sum(max_pool(x, 2)));
  CHECK(to_vector<double>(x.grad()) == std::vector<double>{1, 0, 0, 0});
  CHECK_THROWS_AS(max_pool(random_var({2, 4, 4}, 1), 2), Error);
}

TEST_CASE("upsample") {
  check_op({{2, 3, 4, 5}}, [](auto& v) { return upsample(v[0], 2); });
  check_op({{1, 2, 3, 1}}, [](auto& v) { return upsample(v[0], 3); });
  CHECK(to_vector<double>(upsample(Var(from_vector<double>({1, 2}, {1, 1, 1, 2})), 2).value()) ==
        std::vector<double>{1, 1, 2, 2, 1, 1, 2, 2});
  const Var x = random_var({2, 3, 4, 5}, 1);
  CHECK(difference(avg_pool(upsample(x, 3), 3).value(), x.value()) < 1e-15);
  CHECK_THROWS_AS(upsample(x, 0), Error);
}

TEST_CASE("avg_pool and upsample: windows of 2 at widths around a vector, against the definition") {
  for (int64_t W : {1, 3, 4, 7, 8, 9, 16, 21, 35}) {
    INFO(W);
    for (DType dtype : {DType::f64, DType::f32}) {
      const Var x = random_var({3, 2, 5, W}, 1, dtype);
      const Tensor large = upsample(x, 2).value();
      const std::vector<double> from = to_vector<double>(x.value()), to = to_vector<double>(large);
      for (int64_t i = 0; i < large.numel(); ++i) {
        REQUIRE(to[i] == from[i / (4 * 5 * W) * 5 * W + i / (2 * W) % 10 / 2 * W + i % (2 * W) / 2]);
      }
      CHECK(difference(avg_pool(Var(large), 2).value(), x.value()) == 0);
      // Each is the other's gradient; a last odd column of what is pooled gets none.
      const Var r = random_var(large.shape(), 2, dtype);
      const Tensor dx = gradient(sum(mul(upsample(x, 2), r)), x);
      CHECK(difference(dx, affine(avg_pool(r, 2), 4, 0).value()) < (dtype == DType::f64 ? 1e-15 : 1e-6));
      const Var odd = random_var({1, 1, 4, 2 * W + 1}, 3, dtype), s = random_var({1, 1, 2, W}, 4, dtype);
      const Tensor spread = concat({affine(upsample(s, 2), 0.25, 0), Var(zeros({1, 1, 4, 1}, s.options()))}, 3).value();
      CHECK(difference(gradient(sum(mul(avg_pool(odd, 2), s)), odd), spread) == 0);
    }
  }
}

TEST_CASE("attention") {
  check_op({{2, 5, 24}}, [](auto& v) { return attention(v[0], 2); });
  check_op({{1, 9, 15}}, [](auto& v) { return attention(v[0], 1, true); });
  check_op({{2, 1, 12}}, [](auto& v) { return attention(v[0], 4); });
}

TEST_CASE("attention: a composition of matmul and softmax") {
  struct Case {
    int64_t B, L, H, Dh;
  };
  for (const Case& c : std::vector<Case>{
           {2, 1, 2, 4}, {1, 16, 1, 16}, {2, 17, 3, 5}, {1, 65, 2, 32}, {1, 130, 1, 33}, {1, 40, 2, 64}}) {
    for (bool causal : {false, true}) {
      INFO(c.B, " ", c.L, " ", c.H, " ", c.Dh, " causal ", causal);
      for (DType dtype : {DType::f64, DType::f32}) {
        const double tolerance = dtype == DType::f64 ? 1e-12 : 5e-6;
        const Var qkv = random_var({c.B, c.L, 3 * c.H * c.Dh}, 1, dtype),
                  r = random_var({c.B, c.L, c.H * c.Dh}, 2, dtype);
        const Var y = attention(qkv, c.H, causal), plain = plain_attention(qkv, c.H, causal);
        CHECK(difference(y.value(), plain.value()) < tolerance);
        CHECK(difference(gradient(sum(mul(y, r)), qkv), gradient(sum(mul(plain, r)), qkv)) < tolerance);
      }
    }
  }
}

TEST_CASE("attention: large scores stay finite, later tokens do not leak") {
  Tensor qkv = random_var({1, 6, 12}, 1, DType::f32).value();
  const Tensor large = affine(Var(qkv), 100, 0).value();
  CHECK(all_finite(attention(Var(large), 1).value()));
  const Tensor before = attention(Var(clone(qkv)), 1, true).value();
  fill(qkv.view(5 * 12, {12}), 9);
  const Tensor after = attention(Var(qkv), 1, true).value();
  CHECK(same_bits(clone(before.view(0, {20})), clone(after.view(0, {20}))));
}

TEST_CASE("attention: a NaN in one key reaches every query that sees it, and no other") {
  for (const int64_t L : {3, 18, 34, 65}) {  // queries one by one, in panels, both
    for (const bool causal : {false, true}) {
      INFO(L, " causal ", causal);
      Tensor qkv = random_var({1, L, 12}, 1, DType::f32).value();
      const int64_t key = L - 2;
      fill(qkv.view(key * 12 + 4, {1}), NAN);
      const Tensor y = attention(Var(qkv), 1, causal).value();
      for (int64_t i = 0; i < L; ++i) CHECK(all_finite(clone(y.view(i * 4, {4}))) == (causal && i < key));
    }
  }
}

TEST_CASE("attention: wrong shapes throw") {
  CHECK_THROWS_AS(attention(random_var({2, 5, 24}, 1), 5), Error);
  CHECK_THROWS_AS(attention(random_var({5, 24}, 1), 2), Error);
  CHECK_THROWS_AS(attention(random_var({2, 5, 24}, 1), 0), Error);
}
