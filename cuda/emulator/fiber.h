// Fibers: stacks that are switched by hand, so that thousands of CUDA threads wait at a barrier inside one OS thread.
#pragma once
#include <cstddef>

namespace addp::emulator {

struct Fiber {
  char* stack = nullptr;  // lowest address; null for the host's own stack
  void* context = nullptr;
  void* sanitizer = nullptr;
};
constexpr size_t kStackBytes = 256 << 10;

// A fiber whose first switch_fiber calls entry(), which never returns.
Fiber* create_fiber(void (*entry)());
// Makes a fiber as new; whatever it was doing is forgotten.
void reset_fiber(Fiber* fiber, void (*entry)());
// Goes on in `to`; returns when something switches to `from` again.
void switch_fiber(Fiber* from, Fiber* to);
// To be called first in entry().
void fiber_started();

}  // namespace addp::emulator
