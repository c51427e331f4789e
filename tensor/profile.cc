// The table behind a profile, and the step that takes it.
#include "tensor/profile.h"

#include <algorithm>
#include <utility>

#include "tensor/allocator.h"

namespace addp {

using Clock = std::chrono::steady_clock;

constinit thread_local Profile* current_profile = nullptr;

static double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

const char* phase_name(Phase phase) {
  constexpr const char* kNames[] = {"data", "frozen", "forward", "backward", "optimizer"};
  return kNames[static_cast<int>(phase)];
}

void Profile::begin_kernel() {
  if (depth_++ == 0) kernel_begin_ = Clock::now();
}

void Profile::end_kernel() {
  if (--depth_ == 0) unclaimed_ += since(kernel_begin_);
}

void Profile::claim(Phase phase, const char* name, const Cost& cost) {
  add(phase, name, std::exchange(unclaimed_, 0), cost);
}

void Profile::add(Phase phase, const char* name, double seconds, const Cost& cost) {
  auto row =
      std::find_if(rows_.begin(), rows_.end(), [&](const ProfileRow& r) { return r.phase == phase && r.name == name; });
  if (row == rows_.end()) row = rows_.insert(rows_.end(), {phase, name, 0, 0, {}});
  ++row->calls;
  row->seconds += seconds;
  row->cost.flops += cost.flops;
  row->cost.bytes += cost.bytes;
}

void Profile::graph(int64_t needed) {
  memory.activations_needed = std::max(memory.activations_needed, needed);
  memory.before_backward = std::max(memory.before_backward, memory_statistics().in_use_bytes);
}

Cost Profile::total_cost() const {
  Cost total;
  for (const ProfileRow& row : rows_) total.flops += row.cost.flops, total.bytes += row.cost.bytes;
  return total;
}

ProfiledStep::ProfiledStep(Profile* profile)
    : profile_(profile), previous_(std::exchange(current_profile, profile)), begin_(Clock::now()) {
  if (!profile_) return;
  reset_peak_memory();
  const MemoryStatistics now = memory_statistics();
  blocks_before_ = now.system_calls;
  profile_->memory.at_start = std::max(profile_->memory.at_start, now.in_use_bytes);
}

ProfiledStep::~ProfiledStep() {
  current_profile = previous_;
  if (!profile_) return;
  profile_->seconds += since(begin_);
  ++profile_->steps;
  const MemoryStatistics now = memory_statistics();
  profile_->memory.peak = std::max(profile_->memory.peak, now.peak_bytes);
  profile_->memory.system_blocks += now.system_calls - blocks_before_;
}

}  // namespace addp
