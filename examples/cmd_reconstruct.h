// addp reconstruct: test images through the tokenizer and back.
#pragma once
#include "examples/options.h"

namespace addp {

// Writes a grid (originals above their reconstructions) and prints PSNR, L1 error and codebook usage.
int cmd_reconstruct(const ReconstructOptions& options);

}  // namespace addp
