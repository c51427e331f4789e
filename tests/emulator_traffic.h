// The memory traffic of a launch as a formula of its sizes, for every kernel that a training step starts, so that steps
// which are too large to be emulated can be counted. tests/test_emulator_step.cc holds each formula against what the
// emulator counts.
#pragma once
#include "cuda/emulator/emulator.h"

namespace addp {

// Bytes that memory must deliver and take, as emulator::Counters count them. Throws for a kernel without a formula.
double traffic(const emulator::Launch& launch);

// True where the traffic depends on the data (rows that are chosen by index or mask): the formula gives the most.
bool depends_on_data(const emulator::Launch& launch);

// "layer_norm_fwd_kernel<Team<32>, float>" -> "layer_norm_fwd_kernel"
std::string plain_name(const emulator::Launch& launch);

}  // namespace addp
