// Counter-based random numbers: Philox 4x32-10 (Salmon et al., SC 2011). The same numbers on every device, for every
// number of threads, and after every resume: the whole state is three integers.
#pragma once
#include <cstdint>
#include <string_view>

#include "tensor/philox.h"
#include "tensor/tensor.h"

namespace addp {

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
