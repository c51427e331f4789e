// addp train vqgan|predictor|addp|finetune: one stage of training in a run folder.
#pragma once
#include <string>
#include <vector>

#include "examples/options.h"

namespace addp {

// arguments: the command line, for the message that tells how to resume. Returns 0, or 130/143 when a signal stopped it
// after saving.
int cmd_train(const TrainOptions& options, const std::vector<std::string>& arguments);

}  // namespace addp
