// What code inside a kernel sees under the emulator: built-in variables, barriers, warp collectives, atomics and maths.
// A call's place in the source (source_location) tells collectives apart, so that divergence is found and named.
#pragma once
#include <math.h>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>
#include <memory>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <vector>

#include "cuda/emulator/cuda_runtime.h"

namespace addp::emulator {

// One CUDA thread of the running block.
struct Thread {
  uint3 index;
  unsigned linear, lane, warp;
  struct Fiber* fiber;
  uint64_t value;   // what it brought to a warp collective, then the result
  unsigned source;  // the lane it reads in a shuffle
};

// The running kernel's built-in variables.
struct Running {
  const Thread* thread = nullptr;  // null outside kernels
  uint3 block_index{};
  dim3 block_dim, grid_dim;
};
extern Running running;

using Site = std::source_location;
enum class Collective { sync, shuffle, ballot };
enum class Vote { none, any, all, count };

int block_barrier(Vote vote, int predicate, const Site& site);
uint64_t warp_collective(Collective kind, unsigned mask, uint64_t value, unsigned source, const Site& site);
void* shared_array(const void* key, size_t bytes, size_t alignment, const char* name);
void* dynamic_shared();
void check_launch_bounds(unsigned threads);
void note_atomic(void* address, size_t bytes);

// A launch by value: the arguments and how to call the kernel with them.
struct Call {
  const void* kernel = nullptr;
  void (*invoke)(const void* kernel, void* arguments) = nullptr;
  std::shared_ptr<void> arguments;
  size_t argument_bytes = 0;
  std::vector<const void*> pointers;  // those among the arguments
  std::vector<size_t> element_bytes;  // of what each of them points to
  std::vector<double> numbers;        // the arguments that are numbers
};
void enqueue_launch(Call call, dim3 grid, dim3 block, size_t shared_bytes, void* stream);

template <class... P>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, void* stream,
            std::tuple<P...> arguments) {
  static_assert(sizeof(arguments) <= 4096, "launch: kernel parameters are limited to 4096 bytes");
  Call call;
  call.kernel = reinterpret_cast<const void*>(kernel);
  call.invoke = [](const void* address, void* values) {
    std::apply(reinterpret_cast<void (*)(P...)>(const_cast<void*>(address)), *static_cast<std::tuple<P...>*>(values));
  };
  const auto collect = [&](const auto& argument) {
    using Argument = std::remove_cvref_t<decltype(argument)>;
    if constexpr (std::is_pointer_v<Argument>) {
      call.pointers.push_back(argument);
      call.element_bytes.push_back(sizeof(std::remove_pointer_t<Argument>));
    } else if constexpr (std::is_arithmetic_v<Argument>) {
      call.numbers.push_back(static_cast<double>(argument));
    }
  };
  std::apply([&](const auto&... argument) { (collect(argument), ...); }, arguments);
  call.argument_bytes = sizeof(arguments);
  call.arguments = std::make_shared<std::tuple<P...>>(std::move(arguments));
  enqueue_launch(std::move(call), grid, block, shared_bytes, stream);
}

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_arithmetic_v<T>, "shuffles take numbers of at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
// `lane` leaves [base, base + width): the thread reads itself.
template <class T>
T shuffle(unsigned mask, T value, int lane, int width, const Site& site) {
  const int self = static_cast<int>(running.thread->lane), base = self & ~(width - 1);
  const unsigned source = static_cast<unsigned>(lane < base || lane >= base + width ? self : lane);
  return from_bits<T>(warp_collective(Collective::shuffle, mask, to_bits(value), source, site));
}
template <class T>
concept AtomicInteger = std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, long long> ||
    std::same_as<T, unsigned long long>;
// Blocks CSE and contraction, so that the operation rounds where CUDA's _rn intrinsics round.
template <class T>
T rounded(T value) {
  asm("" : "+x"(value));
  return value;
}

}  // namespace addp::emulator

#define threadIdx (::addp::emulator::running.thread->index)
#define blockIdx (::addp::emulator::running.block_index)
#define blockDim (::addp::emulator::running.block_dim)
#define gridDim (::addp::emulator::running.grid_dim)
constexpr int warpSize = 32;

#define ADDP_SHARED(T, name, ...)                                                              \
  using name##_shared_type = T __VA_ARGS__;                                                    \
  static const char name##_shared_key = 0;                                                     \
  name##_shared_type& name = *static_cast<name##_shared_type*>(::addp::emulator::shared_array( \
      &name##_shared_key, sizeof(name##_shared_type), alignof(name##_shared_type), #name))
#define ADDP_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::addp::emulator::dynamic_shared())
#define ADDP_MAX_THREADS(threads) ::addp::emulator::check_launch_bounds(threads)

// ---- Synchronisation ------------------------------------------------------------------------------------------------
#define ADDP_SITE const ::addp::emulator::Site& site = ::addp::emulator::Site::current()
inline void __syncthreads(ADDP_SITE) { addp::emulator::block_barrier(addp::emulator::Vote::none, 0, site); }
inline int __syncthreads_or(int p, ADDP_SITE) {
  return addp::emulator::block_barrier(addp::emulator::Vote::any, p, site);
}
inline int __syncthreads_and(int p, ADDP_SITE) {
  return addp::emulator::block_barrier(addp::emulator::Vote::all, p, site);
}
inline int __syncthreads_count(int p, ADDP_SITE) {
  return addp::emulator::block_barrier(addp::emulator::Vote::count, p, site);
}
inline void __syncwarp(unsigned mask = ~0u, ADDP_SITE) {
  addp::emulator::warp_collective(addp::emulator::Collective::sync, mask, 0, 0, site);
}
inline unsigned __ballot_sync(unsigned mask, int p, ADDP_SITE) {
  return static_cast<unsigned>(
      addp::emulator::warp_collective(addp::emulator::Collective::ballot, mask, p != 0, 0, site));
}
inline int __any_sync(unsigned mask, int p, ADDP_SITE) { return __ballot_sync(mask, p, site) != 0; }
inline int __all_sync(unsigned mask, int p, ADDP_SITE) { return __ballot_sync(mask, !p, site) == 0; }
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, ADDP_SITE) {
  const int base = static_cast<int>(addp::emulator::running.thread->lane) & ~(width - 1);
  return addp::emulator::shuffle(mask, value, base + (lane & (width - 1)), width, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, ADDP_SITE) {
  return addp::emulator::shuffle(mask, value, static_cast<int>(addp::emulator::running.thread->lane - delta), width,
                                 site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, ADDP_SITE) {
  return addp::emulator::shuffle(mask, value, static_cast<int>(addp::emulator::running.thread->lane + delta), width,
                                 site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, ADDP_SITE) {
  return addp::emulator::shuffle(mask, value, static_cast<int>(addp::emulator::running.thread->lane) ^ bits, width,
                                 site);
}
#undef ADDP_SITE
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- Atomics: on integers only, since sums of floats would depend on the order
// ------------------------------------------
#ifdef __SANITIZE_THREAD__
#define ADDP_UNHOOKED __attribute__((no_sanitize("thread"), noinline))  // race mode is told by note_atomic
#else
#define ADDP_UNHOOKED
#endif
#define ADDP_ATOMIC(name, expression)                               \
  template <addp::emulator::AtomicInteger T>                        \
  ADDP_UNHOOKED T name(T* address, std::type_identity_t<T> value) { \
    addp::emulator::note_atomic(address, sizeof(T));                \
    const T old = *address;                                         \
    *address = expression;                                          \
    return old;                                                     \
  }
ADDP_ATOMIC(atomicAdd, old + value)
ADDP_ATOMIC(atomicMax, std::max(old, value))
ADDP_ATOMIC(atomicMin, std::min(old, value))
ADDP_ATOMIC(atomicOr, old | value)
ADDP_ATOMIC(atomicAnd, old& value)
ADDP_ATOMIC(atomicExch, value)
#undef ADDP_ATOMIC
template <addp::emulator::AtomicInteger T>
ADDP_UNHOOKED T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  addp::emulator::note_atomic(address, sizeof(T));
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}

#undef ADDP_UNHOOKED

// ---- Loads, bits, maths
// -------------------------------------------------------------------------------------------------
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __fmul_rn(float a, float b) { return addp::emulator::rounded(a * b); }
inline float __fadd_rn(float a, float b) { return addp::emulator::rounded(a + b); }
inline float __fsub_rn(float a, float b) { return addp::emulator::rounded(a - b); }
inline float __fdiv_rn(float a, float b) { return addp::emulator::rounded(a / b); }
inline double __dmul_rn(double a, double b) { return addp::emulator::rounded(a * b); }
inline double __dadd_rn(double a, double b) { return addp::emulator::rounded(a + b); }
inline double __dsub_rn(double a, double b) { return addp::emulator::rounded(a - b); }
inline double __ddiv_rn(double a, double b) { return addp::emulator::rounded(a / b); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
// glibc declares functions of these names, so macros they must be.
#define __expf(x) (::std::exp(static_cast<float>(x)))
#define __logf(x) (::std::log(static_cast<float>(x)))
#define __fdividef(a, b) (static_cast<float>(a) / static_cast<float>(b))

using std::max;
using std::min;
template <class A, class B>
requires(!std::same_as<A, B> && std::is_arithmetic_v<A> &&
         std::is_arithmetic_v<B>) constexpr std::common_type_t<A, B> max(A a, B b) {
  return std::max<std::common_type_t<A, B>>(a, b);
}
template <class A, class B>
requires(!std::same_as<A, B> && std::is_arithmetic_v<A> &&
         std::is_arithmetic_v<B>) constexpr std::common_type_t<A, B> min(A a, B b) {
  return std::min<std::common_type_t<A, B>>(a, b);
}
