// Vectors whose elements come in pairs, for resampling by 2: a register of pairs, and half a register that has one
// element of each pair.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

#include "tensor/cpu_math.h"

namespace addp::cpu {

template <class T>
struct Pairs {
  static constexpr int64_t n = kVecBytes / (2 * sizeof(T));  // pairs
  typedef T Narrow __attribute__((vector_size(kVecBytes / 2)));
  typedef T Wide __attribute__((vector_size(kVecBytes)));

  static Narrow load(const T* p) { return load_as<Narrow>(p); }
  static Wide load_wide(const T* p) { return load_as<Wide>(p); }
  template <class V>
  static void store(T* p, V v) {
    std::memcpy(p, &v, sizeof v);
  }
  // a b -> a a b b
  static Wide twice(Narrow v) {
    return [&]<size_t... I>(std::index_sequence<I...>) { return __builtin_shufflevector(v, v, (I / 2)...); }
    (std::make_index_sequence<2 * n>());
  }
  // a b, c d -> a c b d
  static Wide interleave(Narrow v, Narrow w) {
    return [&]<size_t... I>(std::index_sequence<I...>) { return __builtin_shufflevector(v, w, (I / 2 + I % 2 * n)...); }
    (std::make_index_sequence<2 * n>());
  }
  // a b c d -> a c, and b d
  static Narrow first(Wide v) { return every_second<0>(v); }
  static Narrow second(Wide v) { return every_second<1>(v); }
  // The same of two registers: a b c d, e f g h -> a c e g, and b d f h
  static Wide first(Wide v, Wide w) { return every_second<0>(v, w); }
  static Wide second(Wide v, Wide w) { return every_second<1>(v, w); }

 private:
  template <class V>
  static V load_as(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  template <int start>
  static Narrow every_second(Wide v) {
    return [&]<size_t... I>(std::index_sequence<I...>) { return __builtin_shufflevector(v, v, (2 * I + start)...); }
    (std::make_index_sequence<n>());
  }
  template <int start>
  static Wide every_second(Wide v, Wide w) {
    return [&]<size_t... I>(std::index_sequence<I...>) { return __builtin_shufflevector(v, w, (2 * I + start)...); }
    (std::make_index_sequence<2 * n>());
  }
};

}  // namespace addp::cpu
