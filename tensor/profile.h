// Where the time and the memory of a step go. Every kernel is called through dispatch.h, which times it while a profile
// is being taken on its thread; whoever called kernels then claims their time under a name: record() for an op's
// forward pass, the backward pass for each closure, optimizers, random draws. One load and branch a kernel when off.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace addp {

// forward: recorded for a backward pass; frozen: ops and kernels that record nothing.
enum class Phase { data, frozen, forward, backward, optimizer };
const char* phase_name(Phase phase);

// Of one call: multiplications and additions of products (0 for ops that only stream), and the least traffic to
// memory: each input read once, each output written once.
struct Cost {
  double flops = 0, bytes = 0;
};

struct ProfileRow {
  Phase phase;
  std::string name;
  int64_t calls = 0;
  double seconds = 0;
  Cost cost;  // summed over the calls
};

// In bytes, the most over the steps; what the allocator gave out.
struct StepMemory {
  int64_t at_start = 0;            // held when a step begins
  int64_t before_backward = 0;     // held when its backward pass begins
  int64_t peak = 0;                // the most that was held
  int64_t activations_needed = 0;  // of the recorded graph: what backward closures read, each tensor once
  int64_t system_blocks = 0;       // blocks taken from the operating system, summed over the steps
};

class Profile {
 public:
  // Timed kernels since the last claim become a row's.
  void claim(Phase phase, const char* name, const Cost& cost);
  // Time that the caller measured.
  void add(Phase phase, const char* name, double seconds, const Cost& cost = {});
  // The backward pass begins; the graph keeps `needed` bytes for it.
  void graph(int64_t needed);

  const std::vector<ProfileRow>& rows() const { return rows_; }  // in order of appearance
  Cost total_cost() const;
  int64_t steps = 0;
  double seconds = 0;  // of all steps; more than the rows' sum by what no kernel explains
  StepMemory memory;

  // What dispatch() calls around kernels; of nested ones the outermost counts.
  void begin_kernel();
  void end_kernel();

 private:
  std::vector<ProfileRow> rows_;
  std::chrono::steady_clock::time_point kernel_begin_;
  double unclaimed_ = 0;
  int depth_ = 0;
};

// Profiles one step of this thread, from construction to destruction; a null profile: does nothing.
class ProfiledStep {
 public:
  explicit ProfiledStep(Profile* profile);
  ~ProfiledStep();
  ProfiledStep(const ProfiledStep&) = delete;
  ProfiledStep& operator=(const ProfiledStep&) = delete;

 private:
  Profile* profile_;
  Profile* previous_;
  int64_t blocks_before_ = 0;
  std::chrono::steady_clock::time_point begin_;
};

// The profile being taken on this thread, or null.
extern constinit thread_local Profile* current_profile;

// claim() where a profile is taken; cost() is called only then.
template <class F>
inline void claim_kernels(Phase phase, const char* name, F&& cost) {
  if (current_profile) [[unlikely]]
    current_profile->claim(phase, name, cost());
}

}  // namespace addp
