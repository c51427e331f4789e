// The neighbours that read tokens as backbones of recognition (addp/backbone.h): a frozen tokenizer, or a palette,
// turns the image into codes, and the network that reads those is what a task goes on training.
#pragma once
#include <memory>
#include <string>

#include "addp/backbone.h"
#include "examples/run_config.h"

namespace addp {

// run: of stage predictor, gpt or igpt. image_size may differ from the run's, positions are then resized.
// Throws Error(checkpoint) when weights do not fit.
std::unique_ptr<Backbone> token_backbone(const std::string& run_folder, const RunConfig& run,
                                         const BackboneOptions& backbone, Options options);

}  // namespace addp
