// The switch itself: 20 instructions on x86-64, ucontext elsewhere (or with ADDP_EMULATOR_UCONTEXT), about 20 times
// slower. AddressSanitizer and ThreadSanitizer are told of each switch.
#include "cuda/emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "tensor/error.h"

#if !defined(__x86_64__) && !defined(ADDP_EMULATOR_UCONTEXT)
#define ADDP_EMULATOR_UCONTEXT
#endif
#ifdef ADDP_EMULATOR_UCONTEXT
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace addp::emulator {
namespace {

constexpr size_t kPage = 4096;
#ifdef __SANITIZE_ADDRESS__
Fiber* came_from = nullptr;
// Bounds of the host's stack, which AddressSanitizer tells when the host is left.
const void* host_stack = nullptr;
size_t host_bytes = 0;

void finish_switch(void* arrived) {
  const bool from_host = !came_from->stack;
  __sanitizer_finish_switch_fiber(arrived, from_host ? &host_stack : nullptr, from_host ? &host_bytes : nullptr);
}
#endif

char* map_stack() {
  void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check_as(ErrorKind::device, stack != MAP_FAILED, "emulator: no memory for a fiber's stack");
  mprotect(stack, kPage, PROT_NONE);  // an overflow must not reach the neighbour
  return static_cast<char*>(stack);
}

}  // namespace

#ifndef ADDP_EMULATOR_UCONTEXT
asm(R"(
.text
.globl addp_switch_stack
.type addp_switch_stack, @function
addp_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size addp_switch_stack, .-addp_switch_stack
)");
extern "C" void addp_switch_stack(void** save, void* to);
#endif

Fiber* create_fiber(void (*entry)()) {
  auto* fiber = new Fiber;
  fiber->stack = map_stack();
  reset_fiber(fiber, entry);
  return fiber;
}

void reset_fiber(Fiber* fiber, void (*entry)()) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(fiber->stack + kPage, kStackBytes - kPage);
#endif
#ifdef __SANITIZE_THREAD__
  if (fiber->sanitizer) __tsan_destroy_fiber(fiber->sanitizer);
  fiber->sanitizer = __tsan_create_fiber(0);
#endif
#ifdef ADDP_EMULATOR_UCONTEXT
  auto* context = fiber->context ? static_cast<ucontext_t*>(fiber->context) : new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = fiber->stack + kPage;
  context->uc_stack.ss_size = kStackBytes - kPage;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  fiber->context = context;
#else
  // Stacks begin at different places within their pages, else all would compete for the same cache sets.
  const size_t colour = reinterpret_cast<uintptr_t>(fiber->stack) / kStackBytes * 832 % 16384 / 64 * 64;
  auto** top = reinterpret_cast<void**>(fiber->stack + kStackBytes - 64 - colour);
  *--top = nullptr;                              // entry's return address
  *--top = reinterpret_cast<void*>(entry);       // popped by ret
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the saved registers
  fiber->context = top;
#endif
}

void switch_fiber(Fiber* from, Fiber* to) {
#ifdef __SANITIZE_ADDRESS__
  came_from = from;
  __sanitizer_start_switch_fiber(&from->sanitizer, to->stack ? to->stack : host_stack,
                                 to->stack ? kStackBytes : host_bytes);
#endif
#ifdef __SANITIZE_THREAD__
  if (!from->stack) from->sanitizer = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to->sanitizer, 0);
#endif
#ifdef ADDP_EMULATOR_UCONTEXT
  if (!from->context) from->context = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(from->context), static_cast<ucontext_t*>(to->context));
#else
  addp_switch_stack(&from->context, to->context);
#endif
#ifdef __SANITIZE_ADDRESS__
  finish_switch(from->sanitizer);
#endif
}

void fiber_started() {
#ifdef __SANITIZE_ADDRESS__
  finish_switch(nullptr);
#endif
}

}  // namespace addp::emulator
