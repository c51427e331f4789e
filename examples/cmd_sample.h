// addp sample: new images, or completed ones, from a trained ADDP.
#pragma once
#include "examples/options.h"

namespace addp {

// Writes OUT/samples_00000000.png (a grid), alternation.png (a strip: tokens' mask and decoded pixels per step) and one
// PNG per image in OUT/images/; prints the paths and the time per image.
int cmd_sample(const SampleOptions& options);

}  // namespace addp
