// Mean and variance of long ranges on the CPU: sums in vectors of T over pieces that stay in the first-level cache,
// which meet in double. As exact as sums in double throughout for what T can say, at twice the speed.
#pragma once
#include <algorithm>
#include <cstdint>

#include "tensor/cpu_math.h"

namespace addp::cpu {

// Longer rows are summed in pieces of this many elements, which stay in the first-level cache and meet in double.
inline constexpr int64_t kPiece = 4096;

// for_vectors with f(i, lanes, chain): what a chain's calls add up waits for none of the other chains.
inline constexpr int64_t kChains = 4;
template <class T, class F>
inline void for_chains(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kChains * kLanes<T> <= n; i += kChains * kLanes<T>) {
    for (int64_t c = 0; c < kChains; ++c) f(i + c * kLanes<T>, AllLanes<T>{}, c);
  }
  for_vectors<T>(n - i, [&](int64_t j, auto lanes) { f(i + j, lanes, 0); });
}
template <class T>
inline T sum_chains(const Vec<T> (&chains)[kChains]) {
  return sum_lanes<T>((chains[0] + chains[1]) + (chains[2] + chains[3]));
}

// Of n numbers: their mean, and the sum of their squared deviations from it.
struct Moments {
  double n = 0, mean = 0, squares = 0;

  void add(const Moments& other) {
    const double total = n + other.n, apart = other.mean - mean;
    mean += apart * other.n / total;
    squares += other.squares + apart * apart * n * other.n / total;
    n = total;
  }
};

// Moments of a contiguous range. Deviations d are taken from a piece's mean as T holds it, and what that lacks is made
// good: with mean(d) = e, the mean is m + e and the squares are sum(d^2) - n e^2.
template <class T>
inline Moments moments(const T* x, int64_t n) {
  using V = Vec<T>;
  Moments all;
  for (int64_t at = 0; at < n; at += kPiece) {
    const T* piece = x + at;
    const int64_t count = std::min(kPiece, n - at);
    V sum[kChains] = {};
    for_chains<T>(count, [&](int64_t i, auto lanes, int64_t c) { sum[c] += load<T>(piece + i, lanes); });
    const T m = sum_chains<T>(sum) / static_cast<T>(count);
    V rest[kChains] = {}, squares[kChains] = {};
    for_chains<T>(count, [&](int64_t i, auto lanes, int64_t c) {
      const V d = keep<T>(load<T>(piece + i, lanes) - m, lanes);
      rest[c] += d;
      squares[c] += d * d;
    });
    const double parts = double(count), e = double(sum_chains<T>(rest)) / parts;
    all.add({parts, double(m) + e, double(sum_chains<T>(squares)) - parts * e * e});
  }
  return all;
}

}  // namespace addp::cpu
