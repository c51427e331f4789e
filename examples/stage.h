// What all stages of training have in common, as cmd_train.cc sees them: a step, a state to save, pictures.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "addp/config.h"
#include "data/loader.h"
#include "examples/metrics.h"
#include "examples/options.h"
#include "examples/results.h"
#include "nn/state_dict.h"
#include "tensor/random.h"

namespace addp {

// A picture to look at: a grid of images.
struct Picture {
  std::string name;
  std::string png;
};

class Stage {
 public:
  virtual ~Stage() = default;

  // One optimizer step, number `step` from 0, on one batch. Everything random follows from rng. Returns the loss first,
  // then its parts and whatever tells how training goes.
  virtual Scalars step(const Batch& batch, int64_t step, Rng& rng) = 0;

  // Everything that must survive a restart: what the model is, and what its optimizers remember.
  virtual StateDict weights() = 0;
  virtual StateDict averaged_weights() = 0;  // what samples best: the moving average; empty when none is kept
  virtual StateDict optimizer_state() = 0;
  virtual StateDict frozen_weights() { return {}; }  // of the networks that it only uses
  // Throws Error(checkpoint) when names or shapes do not fit.
  virtual void load(const StateDict& weights, const StateDict& optimizer_state) = 0;

  // Pictures of the present state: reconstructions or samples of fixed inputs.
  virtual std::vector<Picture> pictures(const Batch& test_images) = 0;

  // What a finished run is worth on the test split: printed and kept in results.json. None for generative stages.
  virtual Figures evaluate(const Dataset&) { return {}; }
};

// options.tokenizer and options.predictor name the frozen networks' run folders. Throws Error(usage) when one is needed
// and not given.
std::unique_ptr<Stage> make_vqgan_stage(const Config& config, const TrainOptions& options);
std::unique_ptr<Stage> make_predictor_stage(const Config& config, const TrainOptions& options);
std::unique_ptr<Stage> make_addp_stage(const Config& config, const TrainOptions& options);
// options.encoder: the run of a pre-trained encoder, or kNoEncoder.
std::unique_ptr<Stage> make_finetune_stage(const Config& config, const TrainOptions& options, int64_t classes);
std::unique_ptr<Stage> make_segment_stage(const Config& config, const TrainOptions& options, const Dataset& training);
std::unique_ptr<Stage> make_detect_stage(const Config& config, const TrainOptions& options, const Dataset& training);
std::unique_ptr<Stage> make_vit_vqgan_stage(const Config& config, const TrainOptions& options);
std::unique_ptr<Stage> make_gpt_stage(const Config& config, const TrainOptions& options);
std::unique_ptr<Stage> make_igpt_stage(const Config& config, const TrainOptions& options);
std::unique_ptr<Stage> make_classifier_stage(const Config& config, const TrainOptions& options,
                                             const Dataset& training);

// What `addp train NAME` trains.
struct StageKind {
  std::string name, help;
  StageConfig Config::*recipe;  // its part of the configuration
  std::function<std::unique_ptr<Stage>(const Config&, const TrainOptions&, const Dataset& training)> make;
  bool is_recognition = false;  // starts from a pre-trained encoder
  bool is_dense = false;        // on images of dense.image_size, by default on scenes
};
const std::vector<StageKind>& stage_kinds();
const StageKind& stage_kind(const std::string& name);  // throws Error(usage) for an unknown name
std::vector<std::string> stage_names();
std::string stage_help();  // all of them, with what they are

}  // namespace addp
