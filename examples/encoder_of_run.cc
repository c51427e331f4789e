#include "examples/encoder_of_run.h"

#include <filesystem>

#include "examples/frozen.h"
#include "examples/token_backbones.h"

namespace addp {

static bool reads_tokens(const std::string& stage) { return stage == "predictor" || stage == "gpt" || stage == "igpt"; }

Config config_of_encoder(const std::string& run_folder) {
  check_as(ErrorKind::usage, std::filesystem::is_directory(run_folder), "--encoder: ", run_folder,
           " is no folder; expected a run of `addp train addp` or of a neighbour, or none");
  const RunConfig run = read_run_config(run_folder);
  const bool has_encoder = run.stage == "addp" || reads_tokens(run.stage);
  check_as(ErrorKind::usage, has_encoder, "--encoder: ", run_folder, " is a run of stage ", run.stage,
           ", which has no encoder; expected addp, predictor, gpt or igpt");
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
  }
  auto encoder = std::make_unique<EncoderBackbone>(config, backbone, rng, options);
  if (run_folder != kNoEncoder) encoder->start_from(load_addp(run_folder, options)->encoder);
  return encoder;
}

BackboneOptions dense_backbone(const Config& config) {
  return {.image_size = config.dense.image_size,
          .drop_path = config.dense.drop_path,
          .tokenizer_norm = config.dense.tokenizer_norm};
}

}  // namespace addp
