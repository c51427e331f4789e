// Loading trained networks from run folders.
#include "examples/frozen.h"

#include <filesystem>

#include "examples/run_folder.h"
#include "nn/state_dict.h"
#include "tensor/safetensors.h"

namespace addp {

std::string weights_file(const std::string& run_folder) {
  const std::string folder = newest_checkpoint(run_folder), average = folder + "/ema.safetensors";
  return std::filesystem::exists(average) ? average : folder + "/weights.safetensors";
}

namespace {

template <class Module>
void load_frozen(Module& module, const std::string& run_folder) {
  const std::string file = weights_file(run_folder);
  load_state_dict(module, read_safetensors(file).tensors, {file, false});
  set_trainable(module, false);
}

Config config_of(const std::string& run_folder, const std::string& stage) {
  check_as(ErrorKind::usage, std::filesystem::is_directory(run_folder), run_folder,
           ": is no folder; expected a run of `addp train ", stage, "`");
  const RunConfig run = read_run_config(run_folder);
  check_as(ErrorKind::usage, run.stage == stage, run_folder, ": is a run of stage ", run.stage, ", expected ", stage);
  return run.config;
}

}  // namespace

std::unique_ptr<Vqgan> load_vqgan(const std::string& run_folder, Options options) {
  auto vqgan = std::make_unique<Vqgan>(config_of(run_folder, "vqgan").vqgan, options);
  load_frozen(*vqgan, run_folder);
  return vqgan;
}

std::unique_ptr<TokenPredictor> load_predictor(const std::string& run_folder, Options options) {
  auto predictor = std::make_unique<TokenPredictor>(config_of(run_folder, "predictor"), options);
  load_frozen(*predictor, run_folder);
  return predictor;
}

std::unique_ptr<Addp> load_addp(const std::string& run_folder, Options options) {
  auto model = std::make_unique<Addp>(config_of(run_folder, "addp"), options);
  load_frozen(*model, run_folder);
  return model;
}

void check_fits(const Vqgan& vqgan, const Config& config, const std::string& run_folder) {
  check_as(ErrorKind::checkpoint,
           vqgan.config.codebook_size == config.codes() && vqgan.config.downsampling() == config.patch_size, run_folder,
           ": the tokenizer has ", vqgan.config.codebook_size, " codes of ", vqgan.config.downsampling(),
           " pixels, this model expects ", config.codes(), " of ", config.patch_size,
           ": was it trained with another preset?");
}

void check_fits(const TokenPredictor& predictor, const Config& config, const std::string& run_folder) {
  check_as(ErrorKind::checkpoint,
           predictor.config.codes() == config.codes() && predictor.config.tokens() == config.tokens(), run_folder,
           ": the token predictor tells ", predictor.config.tokens(), " tokens among ", predictor.config.codes(),
           " codes, this model expects ", config.tokens(), " among ", config.codes(),
           ": was it trained with another preset?");
}

}  // namespace addp
