// The encoder of a pre-trained run, whatever system it belongs to, as recognition uses it.
// A new system derives from Backbone (addp/backbone.h) and gets its line in backbone_of_run.
#pragma once
#include <memory>
#include <string>

#include "addp/backbone.h"
#include "examples/run_config.h"
#include "examples/systems.h"
#include "nn/optimizer.h"

namespace addp {

inline constexpr const char* kNoEncoder = "none";  // random weights: the supervised baseline

// The configuration that a recognition stage starts from: the encoder's run's, with the recognition recipes of its
// preset (a run may be older than they are). Throws Error(usage) when the folder holds no encoder.
Config config_of_encoder(const std::string& run_folder);

// The newest weights of a run (their moving average where there is one); for kNoEncoder random ones of `config`'s
// sizes, which follow from rng. Throws Error(usage) for a run without an encoder, Error(checkpoint) when weights do not
// fit.
std::unique_ptr<Backbone> backbone_of_run(const std::string& run_folder, const Config& config,
                                          const BackboneOptions& backbone, const Rng& rng, Options options);

// The pixel encoder of a classifier (`addp train finetune`) that started from random weights or from ADDP: with its
// weights, or with those that it started from when nothing had been trained. Throws Error(usage) for a classifier on
// another system's encoder.
std::unique_ptr<EncoderBackbone> encoder_of_classifier(const std::string& run_folder, const RunConfig& run,
                                                       Weights weights, Options options);

// Layer-wise learning rates of a model on a backbone (nn/schedule.h); decay 1: the same for all.
ParameterArena::LrScale layer_decay(const Backbone& backbone, double decay);

// What segmentation and detection ask of their backbone.
BackboneOptions dense_backbone(const Config& config);

}  // namespace addp
