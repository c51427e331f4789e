// addp ablate: the paper's ablations, and quality and time against the number of sampling steps.
#pragma once
#include "examples/options.h"

namespace addp {

// In the same folder as a comparison with the same options it uses that one's tokenizer, predictor and ADDP. Writes
// FOLDER/ablate.json, ablate.md and ablate.html.
int cmd_ablate(const CompareOptions& options, const std::vector<std::string>& arguments);

}  // namespace addp
