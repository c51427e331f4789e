// Lesson 1: tensors. What a tensor is here, who owns its memory, and how a kernel is called.
// Build and run:  make all && build/01_tensor
#include <cstdio>

#include "tensor/allocator.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"
#include "tensor/random.h"

using namespace addp;

int main() {
  // A tensor has a shape, a runtime dtype and a device. It is always contiguous and row-major.
  const Tensor x = from_vector<float>({0, 1, 2, 3, 4, 5}, {2, 3});
  std::printf("x has %lld elements of type %s\n", static_cast<long long>(x.numel()), dtype_name(x.dtype()));

  // Copying a Tensor shares its memory; reshape and view do too; clone does not.
  const Tensor same = x.reshape({3, -1}), row = x.view(3, {3}), other = clone(x);
  fill(row, 10);
  std::printf("after filling row 1 of x: reshaped sees %g, the clone still has %g\n", to_vector<float>(same)[3],
              to_vector<float>(other)[3]);

  // Wrong shapes are found at once, and the message says what was expected and what was found.
  try {
    x.reshape({4, 2});
  } catch (const Error& error) {
    std::printf("an error: %s\n", error.what());
  }

  // Computation is done by kernels: plain functions over pointers, declared in tensor/kernels.h. `dispatch` turns the
  // runtime dtype and device into the template argument T and the tag that picks the backend.
  const Tensor y = empty_like(x);
  dispatch(x, [&](auto device, auto t) {
    using T = decltype(t);
    kernel::unary_fwd<T>(device, kernel::Unary::square, y.ptr<T>(), x.ptr<T>(), x.numel(), 0, 0);
  });
  std::printf("x squared:");
  for (float value : to_vector<float>(y)) std::printf(" %g", value);

  // Random numbers are counter-based: number i of a stream is a function of (seed, stream, i), so the same numbers come
  // out for any number of threads and after any restart.
  Rng rng(42);
  set_num_threads(1);
  const Tensor a = rng.fork("lesson").normal({1000});
  set_num_threads(2);
  const Tensor b = rng.fork("lesson").normal({1000});
  std::printf("\none and two threads give %s numbers\n", same_bits(a, b) ? "the same" : "different");

  // Freed memory is kept for the next tensor of its size: a training loop stops asking the system after one step.
  const int64_t calls = memory_statistics().system_calls;
  for (int i = 0; i < 100; ++i) empty({1000});
  std::printf("100 more tensors, %lld more system calls, peak %lld KiB\n",
              static_cast<long long>(memory_statistics().system_calls - calls),
              static_cast<long long>(memory_statistics().peak_bytes >> 10));
  return same_bits(a, b) ? 0 : 1;
}
