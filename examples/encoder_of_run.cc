#include "examples/encoder_of_run.h"

#include <filesystem>

#include "examples/frozen.h"
#include "examples/token_backbones.h"
#include "nn/schedule.h"
#include "tensor/safetensors.h"

namespace addp {

static bool reads_tokens(const std::string& stage) { return stage == "predictor" || stage == "gpt" || stage == "igpt"; }

Config config_of_encoder(const std::string& run_folder) {
  check_as(ErrorKind::usage, std::filesystem::is_directory(run_folder), "--encoder: ", run_folder,
           " is no folder; expected a run of `addp train addp` or of a neighbour, or none");
  const RunConfig run = read_run_config(run_folder);
  const bool has_encoder = run.stage == "addp" || run.stage == "finetune" || reads_tokens(run.stage);
  check_as(ErrorKind::usage, has_encoder, "--encoder: ", run_folder, " is a run of stage ", run.stage,
           ", which has no encoder; expected addp, predictor, gpt, igpt or finetune");
  const Config recipes = preset(run.config.preset);
  Config config = run.config;
  config.finetune = recipes.finetune;
  config.dense = recipes.dense;
  config.train_finetune = recipes.train_finetune;
  config.train_segment = recipes.train_segment;
  config.train_detect = recipes.train_detect;
  return config;
}

std::unique_ptr<Backbone> backbone_of_run(const std::string& run_folder, const Config& config,
                                          const BackboneOptions& backbone, const Rng& rng, Options options) {
  if (run_folder != kNoEncoder) {
    config_of_encoder(run_folder);  // refuses folders without an encoder
    const RunConfig run = read_run_config(run_folder);
    if (reads_tokens(run.stage)) return token_backbone(run_folder, run, backbone, options);
    auto encoder = std::make_unique<EncoderBackbone>(config, backbone, rng, options);
    if (run.stage == "addp") encoder->start_from(load_addp(run_folder, options)->encoder);
    else encoder->start_from(*encoder_of_classifier(run_folder, run, Weights::trained, options));
    return encoder;
  }
  return std::make_unique<EncoderBackbone>(config, backbone, rng, options);
}

std::unique_ptr<EncoderBackbone> encoder_of_classifier(const std::string& run_folder, const RunConfig& run,
                                                       Weights weights, Options options) {
  check_as(ErrorKind::usage, run.encoder == kNoEncoder || !reads_tokens(read_run_config(run.encoder).stage), run_folder,
           ": is a classifier on the encoder of ", run.encoder, "; only pixel encoders can go on from here");
  // As make_finetune_stage begins.
  auto encoder = std::make_unique<EncoderBackbone>(
      run.config, BackboneOptions{.tokenizer_norm = run.config.finetune.tokenizer_norm}, Rng(run.seed).fork("encoder"),
      options);
  if (weights == Weights::random) return encoder;
  StateDict state = read_safetensors(weights_file(run_folder)).tensors;
  std::erase_if(
      state, [](const auto& entry) { return entry.first.starts_with("fc_norm.") || entry.first.starts_with("head."); });
  load_state_dict(*encoder, state, {weights_file(run_folder)});
  return encoder;
}

ParameterArena::LrScale layer_decay(const Backbone& backbone, double decay) {
  return [depth = backbone.depth, decay](const std::string& name) { return layer_scale(name, depth, decay); };
}

BackboneOptions dense_backbone(const Config& config) {
  return {.image_size = config.dense.image_size,
          .drop_path = config.dense.drop_path,
          .tokenizer_norm = config.dense.tokenizer_norm};
}

}  // namespace addp
