// The device's kernels against what its memory and its arithmetic allow (the roofline of Williams et al. 2009).
// Implemented in cuda/roofline.cc.
#pragma once
#include <string>

namespace addp {

// Runs one kernel family after the other at the sizes of training (under the emulator at small ones, whose times mean
// nothing; the text says so) and tells for each: bytes it must move and operations, both counted from its sizes; time
// by CUDA events, the mean of some runs; rates; and the share of the rate that the device's peaks allow. A peak that
// the device does not tell is shown as "-". Starts the device; throws Error(device) where there is none.
std::string roofline_table();

}  // namespace addp
