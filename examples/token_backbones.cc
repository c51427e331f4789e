#include "examples/token_backbones.h"

#include <algorithm>

#include "addp/token_predictor.h"
#include "autograd/ops.h"
#include "examples/frozen.h"
#include "nn/igpt.h"
#include "tensor/safetensors.h"

namespace addp {
namespace {

// Rising linearly from 0 at the first block.
void set_drop_path(std::vector<Block>& blocks, double last) {
  const double steps = static_cast<double>(std::max<size_t>(1, blocks.size() - 1));
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i].drop_path_rate = last * static_cast<double>(i) / steps;
}

Config for_images(Config config, int64_t image_size) {
  if (image_size == 0 || image_size == config.image_size) return config;
  check_as(ErrorKind::usage, image_size % config.image_size == 0 || config.image_size % image_size == 0,
           "backbone: images of ", image_size, " pixels for a network of ", config.image_size,
           "; expected a multiple or a part");
  config.igpt.size = config.igpt.size * image_size / config.image_size;
  config.image_size = image_size;
  config.position_rows = 1 + config.tokens();
  return config;
}

// MAGE: the token predictor's encoder, nothing masked.
class PredictorBackbone : public Backbone {
 public:
  PredictorBackbone(const std::string& folder, const RunConfig& run, const Config& config, double drop_path, Options on)
      : vqgan_(load_vqgan(run.tokenizer, on)), predictor_(config, on) {
    image_size = config.image_size, grid = config.grid();
    width = config.predictor.width, depth = config.predictor.depth;
    StateDict state = read_safetensors(weights_file(folder)).tensors;
    const std::string name = "token_emb.position_embeddings.weight";
    // Official tables may have more rows than there are places.
    const NoGrad no_grad;
    const Tensor rows = slice(Var(state.at(name)), 0, 0, 1 + run.config.tokens()).value();
    state[name] = resize_positions(rows.reshape({1, rows.dim(0), width}), grid).reshape({-1, width});
    state["decoder_pos_embed_learned"] = resize_positions(state.at("decoder_pos_embed_learned"), grid);
    load_state_dict(predictor_, state, {weights_file(folder)});
    predictor_.token_emb.dropout_rate = 0;
    set_drop_path(predictor_.blocks, drop_path);
  }

  Var patch_tokens(const Var& image, const Mode& mode) const override {
    const Tensor codes = vqgan_->encode_codes(image);
    const Tensor nothing = zeros(codes.shape(), image.options());
    const Var x = predictor_.forward_encoder(codes, nothing, nothing, mode);
    return slice(x, 1, 1, x.dim(1));
  }

  void visit_tensors(const std::string& prefix, const TensorVisitor& f) override {
    predictor_.token_emb.visit(prefix + "token_emb.", f);
    for (size_t i = 0; i < predictor_.blocks.size(); ++i)
      predictor_.blocks[i].visit(prefix + "blocks." + std::to_string(i) + ".", f);
  }

 private:
  std::unique_ptr<Vqgan> vqgan_;
  TokenPredictor predictor_;
};

// All blocks of a causal transformer, as Chen et al. (2020) fine-tune Image GPT.
class CausalBackbone : public Backbone {
 public:
  CausalBackbone(const Config& config, const CausalConfig& transformer, int64_t grid_side, Options on)
      : transformer_(transformer, on) {
    image_size = config.image_size, grid = grid_side;
    width = transformer.width, depth = transformer.depth;
  }

  Var patch_tokens(const Var& image, const Mode& mode) const override {
    return transformer_.read(codes(image.value()), depth, mode);
  }

  // All that comes before the norm and the head.
  void visit_tensors(const std::string& prefix, const TensorVisitor& f) override {
    transformer_.visit("", [&](const std::string& name, Var& var, Role role) {
      if (!name.starts_with("norm.") && !name.starts_with("head.")) f(prefix + name, var, role);
    });
  }

 protected:
  virtual Tensor codes(const Tensor& images) const = 0;

  void load(StateDict state, const std::string& file, double drop_path) {
    state["pos_embed"] = resize_grid_positions(state.at("pos_embed"), grid);
    load_state_dict(transformer_, state, {file});
    set_drop_path(transformer_.blocks, drop_path);
    transformer_.config.dropout = 0;
  }

 private:
  CausalTransformer transformer_;
};

class GptBackbone : public CausalBackbone {
 public:
  GptBackbone(const std::string& folder, const RunConfig& run, const Config& config, double drop_path, Options on)
      : CausalBackbone(config, config.gpt_config(), config.grid(), on),
        tokenizer_(load_tokenizer(run.tokenizer, on, config.image_size)) {
    load(read_safetensors(weights_file(folder)).tensors, weights_file(folder), drop_path);
  }

 protected:
  Tensor codes(const Tensor& images) const override { return tokenizer_->encode(images); }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
};

CausalConfig igpt_transformer(const Config& config) {
  CausalConfig transformer = config.causal;
  transformer.vocabulary = config.igpt.colours, transformer.tokens = config.igpt.size * config.igpt.size;
  return transformer;
}

class IgptBackbone : public CausalBackbone {
 public:
  IgptBackbone(const std::string& folder, const Config& config, double drop_path, Options on)
      : CausalBackbone(config, igpt_transformer(config), config.igpt.size, on),
        palette_(config.igpt.colours, on),
        shrink_(config.image_size / config.igpt.size) {
    const StateDict state = read_safetensors(weights_file(folder)).tensors;
    load_state_dict(palette_, with_prefix_removed(state, "palette."), {weights_file(folder)});
    load(with_prefix_removed(state, "transformer."), weights_file(folder), drop_path);
  }

 protected:
  Tensor codes(const Tensor& images) const override {
    const NoGrad no_grad;
    return palette_.codes(avg_pool(Var(images), shrink_).value());
  }

 private:
  Palette palette_;
  int64_t shrink_;
};

}  // namespace

std::unique_ptr<Backbone> token_backbone(const std::string& run_folder, const RunConfig& run,
                                         const BackboneOptions& backbone, Options options) {
  const Config config = for_images(run.config, backbone.image_size);
  if (run.stage == "predictor")
    return std::make_unique<PredictorBackbone>(run_folder, run, config, backbone.drop_path, options);
  if (run.stage == "gpt") return std::make_unique<GptBackbone>(run_folder, run, config, backbone.drop_path, options);
  check_as(ErrorKind::usage, run.stage == "igpt", run_folder, ": is a run of stage ", run.stage,
           ", expected predictor, gpt or igpt");
  return std::make_unique<IgptBackbone>(run_folder, config, backbone.drop_path, options);
}

}  // namespace addp
