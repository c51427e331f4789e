// What threads of a kernel do together: block barriers, and warp collectives, which join by mask, kind and place in the
// source. Incomplete and divergent ones are faults.
#include <algorithm>
#include <cstring>

#include "cuda/emulator/scheduler.h"

namespace addp::emulator {
namespace {

bool same_place(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

void complete_group(Scheduler& s, Thread* first_lane, Warp& warp, int g) {
  const Group group = warp.group[g];
  warp.group[g] = warp.group[--warp.groups];
  uint64_t in[32];
  uint64_t ballot = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (group.arrived >> lane & 1) {
      in[lane] = first_lane[lane].value;
      ballot |= (in[lane] & 1) << lane;
    }
  if (group.kind == Collective::sync && (group.mask | warp.returned) == ~0u) ++warp.epoch;
  for (unsigned i = 0; i < 32; ++i) {
    const unsigned lane = s.reverse ? 31 - i : i;
    if (!(group.arrived >> lane & 1)) continue;
    Thread& thread = first_lane[lane];
    if (group.kind == Collective::shuffle) {
      if (!(group.arrived >> thread.source & 1))
        fault("shuffle at ", describe(group.site), ": lane ", lane, " reads lane ", thread.source,
              ", which does not take part");
      thread.value = in[thread.source];
    } else {
      thread.value = ballot;
    }
    if (&thread != running.thread) make_ready(s, &thread);
  }
}

}  // namespace

bool complete_groups(Scheduler& s, const Thread& thread) {
  Warp& warp = s.warp[thread.warp];
  bool own = false;
  for (int g = warp.groups - 1; g >= 0; --g) {
    const Group& group = warp.group[g];
    if (((group.arrived | warp.returned) & group.mask) != group.mask) continue;
    own |= group.arrived >> thread.lane & 1;
    complete_group(s, &s.thread[thread.warp * 32], warp, g);
  }
  return own;
}

int block_barrier(Vote vote, int predicate, const Site& site) {
  Scheduler& s = scheduler();
  if (s.returned)
    fault("divergent barrier: __syncthreads at ", describe(site), " after ", s.returned,
          " threads of the block returned");
  if (s.at_barrier.empty()) {
    s.barrier_site = site;
    s.barrier_vote = vote;
  } else if (!same_place(site, s.barrier_site) || vote != s.barrier_vote) {
    fault("divergent barrier: this thread is at __syncthreads at ", describe(site), " while others wait at ",
          describe(s.barrier_site));
  }
  s.yes += predicate != 0;
  s.at_barrier.push_back(const_cast<Thread*>(running.thread));
  if (s.at_barrier.size() < s.threads) {
    wait(s);
  } else {
    const int count = static_cast<int>(s.threads);
    s.barrier_result = vote == Vote::any ? s.yes > 0 : vote == Vote::all ? s.yes == count : s.yes;
    s.yes = 0;
    ++s.epoch;
    // All go on in the block's order; the last to arrive has its turn among them.
    std::sort(s.at_barrier.begin(), s.at_barrier.end(),
              [&](const Thread* a, const Thread* b) { return s.reverse ? a > b : a < b; });
    for (Thread* thread : s.at_barrier) make_ready(s, thread);
    s.at_barrier.clear();
    wait(s);
  }
  return s.barrier_result;
}

uint64_t warp_collective(Collective kind, unsigned mask, uint64_t value, unsigned source, const Site& site) {
  Scheduler& s = scheduler();
  auto& thread = *const_cast<Thread*>(running.thread);
  Warp& warp = s.warp[thread.warp];
  if (!(mask >> thread.lane & 1))
    fault("warp collective at ", describe(site), ": the mask leaves out the calling lane ", thread.lane);
  Group* group = nullptr;
  for (int g = 0; g < warp.groups; ++g) {
    Group& other = warp.group[g];
    if (other.kind == kind && other.mask == mask && same_place(other.site, site)) group = &other;
    else if (other.mask >> thread.lane & 1 && other.arrived & mask)  // each would wait for the other
      fault("divergent warp: lane ", thread.lane, " is at ", describe(site), " while other lanes of its mask wait at ",
            describe(other.site));
  }
  if (!group) {
    group = &warp.group[warp.groups++];
    *group = Group{kind, mask, 0, site};
  }
  group->arrived |= 1u << thread.lane;
  thread.value = value;
  thread.source = source;
  if (!complete_groups(s, thread)) wait(s);
  return thread.value;
}

}  // namespace addp::emulator
