// The list of what can be trained.
#include "examples/stage.h"
#include "examples/suggest.h"

namespace addp {

const std::vector<StageKind>& stage_kinds() {
  // Most stages do not need to know the data set.
  const auto plain = [](std::unique_ptr<Stage> (*make)(const Config&, const TrainOptions&)) {
    return [make](const Config& config, const TrainOptions& options, const Dataset&) { return make(config, options); };
  };
  const auto finetune = [](const Config& config, const TrainOptions& options, const Dataset& training) {
    return make_finetune_stage(config, options, training.classes());
  };
  static const std::vector<StageKind> kinds = {
      {"vqgan", "tokenizer", &Config::train_vqgan, plain(make_vqgan_stage)},
      {"predictor", "token predictor, MAGE", &Config::train_predictor, plain(make_predictor_stage)},
      {"addp", "the method", &Config::train_addp, plain(make_addp_stage)},
      {"vit-vqgan", "tokenizer", &Config::train_vit_vqgan, plain(make_vit_vqgan_stage)},
      {"gpt", "causal, over a tokenizer's codes", &Config::train_gpt, plain(make_gpt_stage)},
      {"igpt", "causal, over pixels", &Config::train_igpt, plain(make_igpt_stage)},
      {"classifier", "judge of generated images", &Config::train_classifier, make_classifier_stage},
      {"finetune", "classifier, from a trained encoder", &Config::train_finetune, finetune, true},
      {"segment", "a class for each pixel, from a trained encoder", &Config::train_segment, make_segment_stage, true,
       true},
      {"detect", "boxes around objects, from a trained encoder", &Config::train_detect, make_detect_stage, true, true},
  };
  return kinds;
}

const StageKind& stage_kind(const std::string& name) {
  for (const StageKind& kind : stage_kinds()) {
    if (name == kind.name) return kind;
  }
  fail(ErrorKind::usage, unknown_name("stage", name, stage_names()));
}

std::vector<std::string> stage_names() {
  std::vector<std::string> names;
  for (const StageKind& kind : stage_kinds()) names.push_back(kind.name);
  return names;
}

std::string stage_help() {
  std::string text;
  for (const StageKind& kind : stage_kinds())
    text += concat_text(text.empty() ? "" : "; ", kind.name, " (", kind.help, ")");
  return text;
}

}  // namespace addp
