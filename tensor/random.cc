// Rng: draws as functions of (seed, stream, position), and the derivation of independent streams.
#include "tensor/random.h"

#include <cmath>
#include <numeric>
#include <utility>

#include "tensor/dispatch.h"

namespace addp {

double Rng::normal() { return philox_normal(seed_, stream_, position_++); }

int64_t Rng::below(int64_t n) {
  check(n > 0, "Rng::below: n must be positive, found ", n);
  return static_cast<int64_t>(uniform() * static_cast<double>(n));
}

double Rng::gumbel() {
  const double u = uniform();
  return -std::log(-std::log(u > 0 ? u : 0x1.0p-54));
}

Tensor Rng::uniform(Shape shape, Options options) {
  Tensor y(std::move(shape), options);
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::random_uniform<T>(dev, y.ptr<T>(), y.numel(), seed_, stream_, position_);
  });
  claim_kernels(Phase::frozen, "random numbers", [&] { return Cost{0, static_cast<double>(y.bytes())}; });
  position_ += y.numel();
  return y;
}

Tensor Rng::normal(Shape shape, Options options) {
  Tensor y(std::move(shape), options);
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::random_normal<T>(dev, y.ptr<T>(), y.numel(), seed_, stream_, position_);
  });
  claim_kernels(Phase::frozen, "random numbers", [&] { return Cost{0, static_cast<double>(y.bytes())}; });
  position_ += y.numel();
  return y;
}

Rng Rng::fork(uint64_t number) const {
  // A Philox block keyed by the seed scrambles (stream, number) into a new stream.
  const auto words = philox({static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32),
                             static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32)},
                            {static_cast<uint32_t>(seed_) ^ 0xA5A5A5A5u, static_cast<uint32_t>(seed_ >> 32)});
  return Rng(seed_, uint64_t{words[0]} << 32 | words[1]);
}

Rng Rng::fork(std::string_view name) const {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return fork(hash);
}

std::vector<int64_t> permutation(int64_t n, Rng& rng) {
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[rng.below(i + 1)]);
  return order;
}

}  // namespace addp
