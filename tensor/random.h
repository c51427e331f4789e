// Counter-based random numbers: Philox 4x32-10 (Salmon et al., SC 2011). The same numbers on every device, for every
// number of threads, and after every resume: the whole state is three integers.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "tensor/tensor.h"

namespace addp {

// One Philox block: four 32-bit words from a 128-bit counter and a 64-bit key. Inlined and unrolled, so that loops over
// counters become vector code.
[[gnu::always_inline]] inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter,
                                                             std::array<uint32_t, 2> key) {
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0], b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// Two independent 53-bit uniform numbers in [0, 1) for number `index` of stream (seed, stream).
struct UniformPair {
  double u, v;
};
[[gnu::always_inline]] inline UniformPair philox_pair(uint64_t seed, uint64_t stream, uint64_t index) {
  const auto words = philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                             static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
                            {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return {static_cast<double>((uint64_t{words[0]} << 21) ^ (words[1] >> 11)) * 0x1.0p-53,
          static_cast<double>((uint64_t{words[2]} << 21) ^ (words[3] >> 11)) * 0x1.0p-53};
}

// A standard normal number (Box and Muller 1958): u gives the radius, v the angle. 1 - u is exact and not 0.
inline double box_muller(UniformPair pair) {
  return std::sqrt(-2 * std::log(1 - pair.u)) * std::cos(6.283185307179586 * pair.v);
}

// All draws of uniform and normal numbers are these functions of the index.
inline double philox_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
  return philox_pair(seed, stream, index).u;
}
inline double philox_normal(uint64_t seed, uint64_t stream, uint64_t index) {
  return box_muller(philox_pair(seed, stream, index));
}

class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0, uint64_t position = 0)
      : seed_(seed), stream_(stream), position_(position) {}

  double uniform() { return philox_uniform(seed_, stream_, position_++); }  // [0, 1)
  double normal();                                                          // mean 0, standard deviation 1
  int64_t below(int64_t n);                                                 // integer in [0, n); n > 0
  double gumbel();                                                          // -log(-log(u))

  // Filled with uniform [0, 1) or standard normal numbers.
  Tensor uniform(Shape shape, Options options = {});
  Tensor normal(Shape shape, Options options = {});

  // An independent generator, the same for the same name; this one does not move.
  Rng fork(std::string_view name) const;
  Rng fork(uint64_t number) const;

  uint64_t seed() const { return seed_; }
  uint64_t stream() const { return stream_; }
  uint64_t position() const { return position_; }

 private:
  uint64_t seed_, stream_, position_;
};

// A random order of 0..n-1.
std::vector<int64_t> permutation(int64_t n, Rng& rng);

}  // namespace addp
