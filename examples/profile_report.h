// What --profile shows: a table of where the time of a step went and what its memory holds, and the same as JSON.
#pragma once
#include <string>
#include <vector>

#include "tensor/profile.h"

namespace addp {

// One kind of a step's memory, beside the least that it could be; bytes.
struct MemoryKind {
  std::string name;
  int64_t held = 0, needed = 0;
};

// What the program knows about memory, beside what the allocator counted.
struct HeldMemory {
  int64_t weights = 0;    // of the networks in training
  int64_t frozen = 0;     // of those that are only used
  int64_t optimizer = 0;  // moments, averages, discriminator
  int64_t batch = 0;      // of images
};
std::vector<MemoryKind> memory_kinds(const StepMemory& memory, const HeldMemory& held);

// Lines of a table: per phase and op the calls and milliseconds of one step, share, GFLOP/s, GB/s; rows under 0.2 % of
// the step are summed. Memory follows when kinds are given.
std::string profile_text(const Profile& profile, const std::vector<MemoryKind>& kinds);

// {"steps", "seconds_per_step", "rows": [{"phase", "op", "calls", "seconds", "share", "flops", "bytes"}, ...],
//  "memory": {...}}; figures of one step. The shares sum to 1: the last row, "outside kernels", is the rest.
std::string profile_json(const Profile& profile, const std::vector<MemoryKind>& kinds);

}  // namespace addp
