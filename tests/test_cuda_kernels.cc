// Device kernels of rows, images, attention, random numbers and codes against the CPU's, at sizes that fill no tile,
// one tile and several, in both precisions.
#include <array>
#include <cmath>
#include <functional>

#include <doctest/doctest.h>
#include "tensor/dispatch.h"
#include "tensor/random.h"

using namespace addp;
using kernel::ConvShape;

namespace {

// The same pointers on both devices: inputs are drawn once, outputs compared.
struct Pair {
  Tensor cpu, device;

  static Pair input(Shape shape, DType dtype, uint64_t seed) {
    return of(Rng(seed).normal(std::move(shape), {dtype, Device::cpu}));
  }
  static Pair of(const Tensor& x) { return {x, to(x, {x.dtype(), Device::cuda})}; }
  static Pair output(Shape shape, DType dtype) {
    return {full(shape, std::nan(""), {dtype, Device::cpu}), empty(shape, {dtype, Device::cuda})};
  }

  // The largest difference, as a part of the largest value.
  double difference() const {
    const std::vector<double> a = to_vector<double>(cpu), b = to_vector<double>(device);
    double largest = 1e-30, worst = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::abs(a[i]));
      worst = std::isnan(a[i]) != std::isnan(b[i]) ? INFINITY : std::max(worst, std::abs(a[i] - b[i]));
    }
    return worst / largest;
  }
  bool same() const { return same_bits(cpu, to(device, cpu.options())); }
};

// f(tag, T{}, get) on the CPU and on the device, where get(pair) is that device's tensor.
template <class F>
void on_both(DType dtype, F&& f) {
  const auto run = [&](auto t) {
    f(Cpu{}, t, [](const Pair& p) -> const Tensor& { return p.cpu; });
    f(current_cuda(), t, [](const Pair& p) -> const Tensor& { return p.device; });
  };
  dtype == DType::f32 ? run(float{}) : run(double{});
}

template <class... Numbers>
std::string describe(const Numbers&... numbers) {
  return concat_text("sizes", concat_text(' ', numbers)...);
}

constexpr DType kTypes[] = {DType::f32, DType::f64};
double tolerance(DType dtype) { return dtype == DType::f32 ? 2e-6 : 1e-13; }

}  // namespace

TEST_CASE("cuda: convolution of any stride, padding and kernel, forward and both gradients") {
  const ConvShape shapes[] = {
      {2, 3, 5, 7, 4, 3, 3, 1, 1, 1, 5, 7},      {1, 17, 6, 5, 65, 3, 3, 2, 1, 1, 3, 3},
      {3, 2, 9, 8, 2, 4, 3, 3, 2, 1, 3, 3},      {2, 2, 7, 5, 3, 2, 1, 3, 1, 0, 2, 2},
      {1, 1, 8, 8, 2, 4, 4, 4, 0, 0, 2, 2},      {2, 33, 12, 12, 9, 1, 1, 1, 0, 0, 12, 12},
      {2, 5, 16, 16, 70, 3, 3, 1, 1, 1, 16, 16}, {1, 20, 7, 9, 6, 5, 3, 2, 2, 1, 4, 5},
      {9, 4, 16, 16, 3, 3, 3, 1, 1, 1, 16, 16},
  };
  for (DType dtype : kTypes) {
    for (const ConvShape& s : shapes) {
      INFO(describe(s.B, s.Ci, s.Hi, s.Wi, s.Co, s.kh, s.kw, s.stride));
      const Pair x = Pair::input({s.B, s.Ci, s.Hi, s.Wi}, dtype, 1), bias = Pair::input({s.Co}, dtype, 3);
      const Pair weight = Pair::input({s.Co, s.Ci, s.kh, s.kw}, dtype, 2);
      const Pair dy = Pair::input({s.B, s.Co, s.Ho, s.Wo}, dtype, 4);
      const Pair y = Pair::output(dy.cpu.shape(), dtype), plain = Pair::output(dy.cpu.shape(), dtype);
      const Pair dx = Pair::output(x.cpu.shape(), dtype), dweight = Pair::output(weight.cpu.shape(), dtype);
      on_both(dtype, [&](auto dev, auto t, auto get) {
        using T = decltype(t);
        const auto p = [&](const Pair& pair) { return get(pair).template ptr<T>(); };
        kernel::conv2d_fwd<T>(dev, p(y), p(x), p(weight), p(bias), s);
        kernel::conv2d_fwd<T>(dev, p(plain), p(x), p(weight), nullptr, s);
        kernel::conv2d_bwd_data<T>(dev, p(dx), p(dy), p(weight), s);
        kernel::conv2d_bwd_weight<T>(dev, p(dweight), p(dy), p(x), s);
      });
      CHECK(y.difference() < tolerance(dtype));
      CHECK(plain.difference() < tolerance(dtype));
      CHECK(dx.difference() < tolerance(dtype));
      CHECK(dweight.difference() < tolerance(dtype));
    }
  }
}

// Wide rows take a whole block, and there are more of everything than the emulator's grids have blocks.
TEST_CASE("cuda: rows, narrow and wide, few and many") {
  struct Size {
    int64_t N, D;
  };
  for (DType dtype : kTypes) {
    for (const Size& s : {Size{1, 3}, Size{5, 8}, Size{67, 33}, Size{7, 1028}, Size{9, 1501}}) {
      INFO(describe(s.N, s.D));
      const Shape shape{s.N, s.D};
      const auto input = [&](Shape of, uint64_t seed) { return Pair::input(std::move(of), dtype, seed); };
      const auto output = [&](Shape of) { return Pair::output(std::move(of), dtype); };
      const Pair x = input(shape, 1), dy = input(shape, 2), weight = input({s.D}, 3), bias = input({s.D}, 4);
      const Pair target = Pair::of(Rng(5).uniform(shape, {dtype, Device::cpu}));
      const Pair row_weight = Pair::of(Rng(6).uniform({s.N}, {dtype, Device::cpu}));
      const Pair softmax = output(shape), d_softmax = output(shape), log_softmax = output(shape);
      const Pair d_log = output(shape), loss = output({1}), d_logits = output(shape);
      const Pair norm = output(shape), mean = output({s.N}), rstd = output({s.N}), dx = output(shape);
      const Pair d_weight = output({s.D}), d_bias = output({s.D}), sums = output({s.N}),
                 transposed = output({s.D, s.N});
      on_both(dtype, [&](auto dev, auto t, auto get) {
        using T = decltype(t);
        const auto p = [&](const Pair& pair) { return get(pair).template ptr<T>(); };
        kernel::softmax_fwd<T>(dev, p(softmax), p(x), s.N, s.D);
        kernel::softmax_bwd<T>(dev, p(d_softmax), p(dy), p(softmax), s.N, s.D);
        kernel::log_softmax_fwd<T>(dev, p(log_softmax), p(x), s.N, s.D);
        kernel::log_softmax_bwd<T>(dev, p(d_log), p(dy), p(log_softmax), s.N, s.D);
        kernel::soft_cross_entropy<T>(dev, p(loss), p(d_logits), p(x), p(target), p(row_weight), s.N, s.D, s.D, 0.1);
        kernel::layer_norm_fwd<T>(dev, p(norm), p(mean), p(rstd), p(x), p(weight), p(bias), s.N, s.D, 1e-5);
        kernel::layer_norm_bwd<T>(dev, p(dx), p(d_weight), p(d_bias), p(dy), p(x), p(weight), p(mean), p(rstd), s.N,
                                  s.D);
        kernel::sum_axis<T>(dev, p(sums), p(x), s.N, s.D, 1, 0.5);
        kernel::permute<T>(dev, p(transposed), p(x), shape, {1, 0});
      });
      for (const Pair* result : {&softmax, &d_softmax, &log_softmax, &d_log, &loss, &d_logits, &norm, &mean, &rstd, &dx,
                                 &d_weight, &d_bias, &sums}) {
        CHECK(result->difference() < 4 * tolerance(dtype));
      }
      CHECK(transposed.same());
    }
  }
}

TEST_CASE("cuda: pooling and upsampling, the same bits as on the CPU") {
  struct Size {
    int64_t planes, H, W, k;
  };
  for (DType dtype : kTypes) {
    for (const Size& s : {Size{3, 7, 5, 2}, Size{5, 6, 9, 3}, Size{1, 40, 70, 2}, Size{2, 3, 1100, 1}}) {
      INFO(describe(s.planes, s.H, s.W, s.k));
      const Shape whole{s.planes, s.H, s.W}, pooled{s.planes, s.H / s.k, s.W / s.k};
      const Shape large{s.planes, s.H * s.k, s.W * s.k};
      // Few values, so that maxima are tied.
      Tensor steps = full(whole, 0, {dtype, Device::cpu});
      Rng rng(5);
      dispatch(steps, [&](auto, auto t) {
        auto* at = steps.ptr<decltype(t)>();
        for (int64_t i = 0; i < steps.numel(); ++i) at[i] = static_cast<decltype(t)>(rng.below(3));
      });
      const Pair x = Pair::input(whole, dtype, 1), tied = Pair::of(steps);
      const Pair d_pooled = Pair::input(pooled, dtype, 2), d_large = Pair::input(large, dtype, 3);
      const Pair mean = Pair::output(pooled, dtype), d_mean = Pair::output(whole, dtype);
      const Pair top = Pair::output(pooled, dtype), d_top = Pair::output(whole, dtype);
      const Pair up = Pair::output(large, dtype), d_up = Pair::output(whole, dtype);
      const Pair argmax = Pair::of(zeros(pooled, {DType::i64, Device::cpu}));
      on_both(dtype, [&](auto dev, auto t, auto get) {
        using T = decltype(t);
        const auto p = [&](const Pair& pair) { return get(pair).template ptr<T>(); };
        int64_t* const index = get(argmax).template ptr<int64_t>();
        kernel::avg_pool_fwd<T>(dev, p(mean), p(x), s.planes, s.H, s.W, s.k);
        kernel::avg_pool_bwd<T>(dev, p(d_mean), p(d_pooled), s.planes, s.H, s.W, s.k);
        kernel::max_pool_fwd<T>(dev, p(top), index, p(tied), s.planes, s.H, s.W, s.k);
        kernel::max_pool_bwd<T>(dev, p(d_top), p(d_pooled), index, s.planes, s.H, s.W, s.k);
        kernel::upsample_fwd<T>(dev, p(up), p(x), s.planes, s.H, s.W, s.k);
        kernel::upsample_bwd<T>(dev, p(d_up), p(d_large), s.planes, s.H, s.W, s.k);
      });
      CHECK(mean.same());
      CHECK(d_mean.same());
      CHECK(top.same());
      CHECK(argmax.same());
      CHECK(d_top.same());
      CHECK(up.same());
      CHECK(d_up.same());
    }
  }
}

TEST_CASE("cuda: attention over several tiles of keys, masked or not, wide heads included") {
  struct Size {
    int64_t B, L, H, Dh;
  };
  for (DType dtype : kTypes) {
    for (const Size& s : {Size{2, 5, 3, 8}, Size{1, 130, 2, 7}, Size{1, 64, 1, 72}, Size{1, 67, 2, 150}}) {
      for (bool causal : {false, true}) {
        INFO(describe(s.L, s.H, s.Dh, causal));
        const Pair qkv = Pair::input({s.B, s.L, 3, s.H, s.Dh}, dtype, 1),
                   d_o = Pair::input({s.B, s.L, s.H, s.Dh}, dtype, 2);
        const Pair o = Pair::output(d_o.cpu.shape(), dtype), lse = Pair::output({s.B, s.H, s.L}, dtype);
        const Pair dqkv = Pair::output(qkv.cpu.shape(), dtype);
        const double scale = 1 / std::sqrt(static_cast<double>(s.Dh));
        on_both(dtype, [&](auto dev, auto t, auto get) {
          using T = decltype(t);
          const auto p = [&](const Pair& pair) { return get(pair).template ptr<T>(); };
          kernel::attention_fwd<T>(dev, p(o), p(lse), p(qkv), s.B, s.L, s.H, s.Dh, scale, causal);
          kernel::attention_bwd<T>(dev, p(dqkv), p(d_o), p(o), p(lse), p(qkv), s.B, s.L, s.H, s.Dh, scale, causal);
        });
        CHECK(o.difference() < tolerance(dtype));
        CHECK(lse.difference() < tolerance(dtype));
        CHECK(dqkv.difference() < tolerance(dtype));
      }
    }
  }
}

TEST_CASE("cuda: random numbers are the CPU's") {
  for (DType dtype : kTypes) {
    for (int64_t n : {1, 300, 5000}) {
      const uint64_t seed = 0x123456789abcdefull, stream = 77, position = (uint64_t{1} << 32) - 100;
      const Pair x = Pair::input({n}, dtype, 1), uniform = Pair::output({n}, dtype), normal = Pair::output({n}, dtype);
      on_both(dtype, [&](auto dev, auto t, auto get) {
        using T = decltype(t);
        kernel::random_uniform<T>(dev, get(uniform).template ptr<T>(), n, seed, stream, position);
        kernel::random_normal<T>(dev, get(normal).template ptr<T>(), n, seed, stream, position);
      });
      CHECK(uniform.same());
      CHECK(normal.difference() < 1e-15);
      for (int64_t group : {1, 2, 5, 100, 2500}) {
        if (n % group != 0) continue;
        const Pair y = Pair::output({n}, dtype);
        on_both(dtype, [&](auto dev, auto t, auto get) {
          using T = decltype(t);
          kernel::dropout<T>(dev, get(y).template ptr<T>(), get(x).template ptr<T>(), n, group, 0.3, seed, stream, 9);
        });
        CHECK(y.same());
      }
    }
  }
}

TEST_CASE("cuda: nearest codes, code sums, masks") {
  struct Size {
    int64_t N, K, D;
  };
  for (DType dtype : kTypes) {
    for (const Size& s : {Size{5, 3, 2}, Size{70, 130, 17}, Size{300, 65, 300}}) {
      INFO(describe(s.N, s.K, s.D));
      const Tensor book = Rng(2).normal({s.K, s.D}, {dtype, Device::cpu});
      if (s.K > 70) copy_into(book.view(s.D * (s.K - 1), {s.D}), book.view(s.D * 3, {s.D}));  // ties: the first wins
      const Tensor rows = Rng(1).normal({s.N, s.D}, {dtype, Device::cpu});
      if (s.K > 70) copy_into(rows.view(s.D, {s.D}), book.view(s.D * 3, {s.D}));
      const Pair z = Pair::of(rows), codebook = Pair::of(book);
      const Pair code = Pair::of(zeros({s.N}, {DType::i64, Device::cpu}));
      const Pair count = Pair::output({s.K}, dtype), sum = Pair::output({s.K, s.D}, dtype);
      const Pair mask = Pair::output({s.N, s.D}, dtype), constant = Pair::of(ones({s.N, s.D}, {dtype, Device::cpu}));
      const Pair first = Pair::output({s.N, s.D}, dtype);
      std::vector<int64_t> chosen(static_cast<size_t>(s.N));
      for (int64_t b = 0; b < s.N; ++b) chosen[static_cast<size_t>(b)] = b % (s.D + 1);
      on_both(dtype, [&](auto dev, auto t, auto get) {
        using T = decltype(t);
        const auto p = [&](const Pair& pair) { return get(pair).template ptr<T>(); };
        int64_t* const index = get(code).template ptr<int64_t>();
        kernel::nearest_codes<T>(dev, index, p(z), p(codebook), s.N, s.K, s.D);
        kernel::code_sums<T>(dev, p(count), p(sum), p(z), index, s.N, s.K, s.D);
        kernel::smallest_mask<T>(dev, p(mask), p(z), chosen.data(), s.N, s.D);
        kernel::smallest_mask<T>(dev, p(first), p(constant), chosen.data(), s.N, s.D);
      });
      CHECK(code.same());
      CHECK(count.same());
      CHECK(sum.same());
      CHECK(mask.same());
      CHECK(first.same());
    }
  }
}

TEST_CASE("cuda: gradients of gathered rows, of more indices than are staged at a time") {
  constexpr int64_t N = 50, M = 2500;
  std::vector<int64_t> chosen;
  Rng rng(4);
  for (int64_t m = 0; m < M; ++m) chosen.push_back(rng.below(N));
  const Pair index = Pair::of(from_vector(chosen, {M}));
  for (DType dtype : kTypes) {
    for (const int64_t D : {24, 300}) {
      INFO(describe(D));
      const Pair dy = Pair::input({M, D}, dtype, 1), dx = Pair::output({N, D}, dtype);
      on_both(dtype, [&](auto dev, auto t, auto get) {
        using T = decltype(t);
        kernel::gather_rows_bwd<T>(dev, get(dx).template ptr<T>(), get(dy).template ptr<T>(),
                                   get(index).template ptr<int64_t>(), 1, N, M, D, true);
      });
      CHECK(dx.same());
    }
  }
}

TEST_CASE("cuda: sums over a middle axis, columns beyond a tile") {
  for (DType dtype : kTypes) {
    for (const auto& [outer, n, inner] : {std::array<int64_t, 3>{1, 300, 33}, {2, 70, 257}, {3, 5, 1001}}) {
      INFO(describe(outer, n, inner));
      const Pair x = Pair::input({outer, n, inner}, dtype, 1), y = Pair::output({outer, inner}, dtype);
      on_both(dtype, [&, outer = outer, n = n, inner = inner](auto dev, auto t, auto get) {
        using T = decltype(t);
        kernel::sum_axis<T>(dev, get(y).template ptr<T>(), get(x).template ptr<T>(), outer, n, inner, 0.5);
      });
      CHECK(y.difference() < tolerance(dtype));
    }
  }
}

TEST_CASE("cuda: a code outside the codebook is reported") {
  const Tensor z = ones({3, 2}, {DType::f32, Device::cuda}), count = empty({4}, z), sum = empty({4, 2}, z);
  const Tensor code = from_vector(std::vector<int64_t>{0, 4, 1}, {3}, {DType::i64, Device::cuda});
  kernel::code_sums<float>(current_cuda(), count.ptr<float>(), sum.ptr<float>(), z.ptr<float>(), code.ptr<int64_t>(), 3,
                           4, 2);
  CHECK_THROWS_AS(to_vector<float>(sum), Error);
}

TEST_CASE("cuda: draws from probabilities, top-p") {
  struct Size {
    int64_t N, K;
  };
  for (DType dtype : kTypes) {
    for (const Size& s : {Size{3, 1}, Size{9, 5}, Size{20, 33}, Size{11, 200}}) {
      INFO(describe(s.N, s.K));
      // Multiples of 1/64, some equal, so that sums are exact and ties matter.
      Rng rng(3);
      std::vector<double> values(static_cast<size_t>(s.N * s.K));
      for (int64_t r = 0; r < s.N; ++r) {
        for (int64_t left = 64; left > 0; --left) values[static_cast<size_t>(r * s.K + rng.below(s.K))] += 1.0 / 64;
      }
      const Pair prob = Pair::of(to(from_vector(values, {s.N, s.K}), {dtype, Device::cpu}));
      const Pair u = Pair::of(Rng(4).uniform({s.N}, {dtype, Device::cpu}));
      const Pair code = Pair::of(zeros({s.N}, {DType::i64, Device::cpu}));
      on_both(dtype, [&](auto dev, auto t, auto get) {
        using T = decltype(t);
        kernel::sample_categorical<T>(dev, get(code).template ptr<int64_t>(), get(prob).template ptr<T>(),
                                      get(u).template ptr<T>(), s.N, s.K);
      });
      CHECK(code.same());
      for (double p : {1e-9, 0.25, 0.5, 0.9, 1.0}) {
        const Pair y = Pair::output({s.N, s.K}, dtype);
        on_both(dtype, [&](auto dev, auto t, auto get) {
          using T = decltype(t);
          kernel::top_p<T>(dev, get(y).template ptr<T>(), get(prob).template ptr<T>(), s.N, s.K, p);
        });
        CHECK(y.same());
      }
    }
  }
}
