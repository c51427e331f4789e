// The numbers behind every random draw, for host and device code alike: Philox 4x32-10 (Salmon et al., SC 2011).
#pragma once
#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define ADDP_HOST_DEVICE __host__ __device__
#else
#define ADDP_HOST_DEVICE
#endif

namespace addp {

struct PhiloxWords {
  uint32_t word[4];
  ADDP_HOST_DEVICE uint32_t operator[](int i) const { return word[i]; }
  bool operator==(const PhiloxWords&) const = default;
};
struct PhiloxKey {
  uint32_t word[2];
};

// One Philox block: four 32-bit words from a 128-bit counter and a 64-bit key. Inlined and unrolled, so that loops over
// counters become vector code.
[[gnu::always_inline]] ADDP_HOST_DEVICE inline PhiloxWords philox(PhiloxWords counter, PhiloxKey key) {
#ifndef __CUDACC__
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0], b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key.word[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key.word[1], static_cast<uint32_t>(a)};
    key.word[0] += 0x9E3779B9u;
    key.word[1] += 0xBB67AE85u;
  }
  return counter;
}

// Two independent 53-bit uniform numbers in [0, 1) for number `index` of stream (seed, stream).
struct UniformPair {
  double u, v;
};
[[gnu::always_inline]] ADDP_HOST_DEVICE inline UniformPair philox_pair(uint64_t seed, uint64_t stream, uint64_t index) {
  const PhiloxWords words = philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                                    static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
                                   {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return {static_cast<double>((uint64_t{words[0]} << 21) ^ (words[1] >> 11)) * 0x1.0p-53,
          static_cast<double>((uint64_t{words[2]} << 21) ^ (words[3] >> 11)) * 0x1.0p-53};
}

// A standard normal number (Box and Muller 1958): u gives the radius, v the angle. 1 - u is exact and not 0.
ADDP_HOST_DEVICE inline double box_muller(UniformPair pair) {
#ifdef __CUDA_ARCH__
  const double across = cospi(2 * pair.v);  // cos would keep a table for huge angles in memory; equal to an ulp
#else
  const double across = std::cos(6.283185307179586 * pair.v);
#endif
  return std::sqrt(-2 * std::log(1 - pair.u)) * across;
}

// All draws of uniform and normal numbers are these functions of the index.
ADDP_HOST_DEVICE inline double philox_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
  return philox_pair(seed, stream, index).u;
}
ADDP_HOST_DEVICE inline double philox_normal(uint64_t seed, uint64_t stream, uint64_t index) {
  return box_muller(philox_pair(seed, stream, index));
}

}  // namespace addp
