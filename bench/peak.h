// What this machine can do at best: the rates that shares in tables refer to.
#pragma once

namespace addp {

// Fused multiply-adds of registers on all threads of the team, in FLOP/s; the best of some short runs.
double fma_peak();
// Copying 12.8 MB that stay in the last cache, or come from memory where that is smaller: bytes read plus bytes
// written, per second; the best of some runs.
double copy_rate();

}  // namespace addp
