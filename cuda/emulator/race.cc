// Race mode is not compiled in: kernels carry no hooks.
#include "cuda/emulator/emulator.h"

namespace addp::emulator {

bool race_mode() { return false; }
void note_atomic(void*, size_t) {}

}  // namespace addp::emulator
