// Loading trained networks from run folders.
#include "examples/frozen.h"

#include <filesystem>

#include "addp/backbone.h"
#include "autograd/ops.h"
#include "examples/run_folder.h"
#include "nn/state_dict.h"
#include "nn/vit_vqgan.h"
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

namespace {

template <class Network>
class NetworkTokenizer : public Tokenizer {
 public:
  template <class Sizes>
  NetworkTokenizer(const Sizes& sizes, const Config& config, const StateDict& weights, const std::string& file,
                   Options on)
      : network_(sizes, on), codes_(config.codes()), patch_size_(config.patch_size) {
    load_state_dict(network_, weights, {file});
    set_trainable(network_, false);
  }

  Tensor encode(const Tensor& images) const override { return network_.encode_codes(Var(images)); }
  Tensor decode(const Tensor& codes) const override {
    const NoGrad no_grad;
    return clamp(network_.decode_tokens(network_.embed_codes(codes)), 0, 1).value();
  }
  int64_t codes() const override { return codes_; }
  int64_t patch_size() const override { return patch_size_; }
  StateDict weights() override { return state_dict(network_); }

 private:
  Network network_;
  int64_t codes_, patch_size_;
};

void check_codes(int64_t codes, int64_t patch_size, const Config& config, const std::string& run_folder) {
  check_as(ErrorKind::checkpoint, codes == config.codes() && patch_size == config.patch_size, run_folder,
           ": the tokenizer has ", codes, " codes of ", patch_size, " pixels, this model expects ", config.codes(),
           " of ", config.patch_size, ": was it trained with another preset?");
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& run_folder, Options options, int64_t image_size) {
  check_as(ErrorKind::usage, std::filesystem::is_directory(run_folder), run_folder,
           ": is no folder; expected a run of `addp train vqgan` or `addp train vit-vqgan`");
  const RunConfig run = read_run_config(run_folder);
  check_as(ErrorKind::usage, run.stage == "vqgan" || run.stage == "vit-vqgan", run_folder, ": is a run of stage ",
           run.stage, ", expected vqgan or vit-vqgan");
  Config c = run.config;
  const std::string file = weights_file(run_folder);
  StateDict weights = read_safetensors(file).tensors;
  if (run.stage == "vqgan") return std::make_unique<NetworkTokenizer<Vqgan>>(c.vqgan, c, weights, file, options);
  if (image_size > 0) c.image_size = image_size;
  for (const char* name : {"pos_embed", "decoder_pos_embed"})
    weights[name] = resize_grid_positions(weights.at(name), c.grid());
  return std::make_unique<NetworkTokenizer<VitVqgan>>(c.vit_vqgan_config(), c, weights, file, options);
}

void check_fits(const Vqgan& vqgan, const Config& config, const std::string& run_folder) {
  check_codes(vqgan.config.codebook_size, vqgan.config.downsampling(), config, run_folder);
}

void check_fits(const Tokenizer& tokenizer, const Config& config, const std::string& run_folder) {
  check_codes(tokenizer.codes(), tokenizer.patch_size(), config, run_folder);
}

void check_fits(const TokenPredictor& predictor, const Config& config, const std::string& run_folder) {
  check_as(ErrorKind::checkpoint,
           predictor.config.codes() == config.codes() && predictor.config.tokens() == config.tokens(), run_folder,
           ": the token predictor tells ", predictor.config.tokens(), " tokens among ", predictor.config.codes(),
           " codes, this model expects ", config.tokens(), " among ", config.codes(),
           ": was it trained with another preset?");
}

}  // namespace addp
