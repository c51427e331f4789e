// Which networks make up each system. How they are trained is in stage_*.cc.
#include "examples/systems.h"

#include "addp/addp.h"
#include "addp/recognition.h"
#include "addp/sampler.h"
#include "addp/token_predictor.h"
#include "autograd/ops.h"
#include "examples/encoder_of_run.h"
#include "examples/frozen.h"
#include "nn/igpt.h"
#include "nn/state_dict.h"
#include "tensor/safetensors.h"

namespace addp {
namespace {

// A model with the weights of its run, or with those that the run began with. rng_name: the training stage's.
template <class Model>
void fill_weights(Model& model, const std::string& run_folder, const RunConfig& run, const char* rng_name,
                  Weights weights) {
  if (weights == Weights::random) initialize(model, Rng(run.seed).fork(rng_name));
  else load_state_dict(model, read_safetensors(weights_file(run_folder)).tensors, {weights_file(run_folder)});
  set_trainable(model, false);
}

// A model over the codes of a VQGAN. rng_name: the training stage's.
template <class Model>
class VqganSystem : public System {
 public:
  VqganSystem(const std::string& folder, const RunConfig& run, Options on, Weights weights, const char* rng_name)
      : System(run), on_(on), vqgan_(load_vqgan(run.tokenizer, on)), model_(run.config, on) {
    check_fits(*vqgan_, run.config, run.tokenizer);
    fill_weights(model_, folder, run, rng_name, weights);
  }

 protected:
  SamplerState start(int64_t count) const { return start_sampling(count, run().config.tokens(), on_); }

  Options on_;
  std::unique_ptr<Vqgan> vqgan_;
  Model model_;
};

class AddpSystem : public VqganSystem<Addp> {
 public:
  AddpSystem(const std::string& folder, const RunConfig& run, Options on, Weights weights)
      : VqganSystem(folder, run, on, weights, "addp") {}
  std::string name() const override { return "ADDP"; }

  Tensor draw(int64_t count, Rng& rng) const override {
    return sample(model_, *vqgan_, start(count), run().config.sampler, rng).image;
  }

  // The pixel encoder as in pre-training, before its last norm.
  Tensor tokens(const Tensor& images) const override {
    const NoGrad no_grad;
    const Var x = model_.encoder.run_blocks(model_.encoder.encoder_tokens(Var(to(images, on_))));
    return slice(x, 1, 1, x.dim(1)).value();
  }
};

// The token predictor alone.
class MageSystem : public VqganSystem<TokenPredictor> {
 public:
  MageSystem(const std::string& folder, const RunConfig& run, Options on, Weights weights)
      : VqganSystem(folder, run, on, weights, "predictor") {}
  std::string name() const override { return "MAGE"; }

  Tensor draw(int64_t count, Rng& rng) const override {
    return sample_predictor(model_, *vqgan_, start(count), run().config.sampler, rng).image;
  }

  Tensor tokens(const Tensor& images) const override {
    return token_features(model_, vqgan_->encode_codes(Var(to(images, on_))));
  }
};

// The causal transformer over a tokenizer's codes: with vit-vqgan's it is ViT-VQGAN.
class GptSystem : public System {
 public:
  GptSystem(const std::string& folder, const RunConfig& run, Options on, Weights weights)
      : System(run),
        on_(on),
        tokenizer_(load_tokenizer(run.tokenizer, on)),
        name_(read_run_config(run.tokenizer).stage == "vit-vqgan" ? "ViT-VQGAN" : "VQGAN + GPT"),
        model_(run.config.gpt_config(), on) {
    check_fits(*tokenizer_, run.config, run.tokenizer);
    fill_weights(model_, folder, run, "gpt", weights);
  }
  std::string name() const override { return name_; }

  Tensor draw(int64_t count, Rng& rng) const override {
    return tokenizer_->decode(sample_codes(model_, count, run().config.causal_sampler, rng));
  }
  Tensor tokens(const Tensor& images) const override { return model_.features(tokenizer_->encode(to(images, on_))); }

 private:
  Options on_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string name_;
  CausalTransformer model_;
};

class IgptSystem : public System {
 public:
  IgptSystem(const std::string& folder, const RunConfig& run, Options on, Weights weights)
      : System(run), on_(on), model_(run.config.igpt_config(), run.config.causal, on) {
    // The palette is no weight that learns: it is the trained run's in either case.
    load_state_dict(model_, read_safetensors(weights_file(folder)).tensors, {weights_file(folder)});
    if (weights == Weights::random) initialize(model_, Rng(run.seed).fork("igpt"));
    set_trainable(model_, false);
  }
  std::string name() const override { return "iGPT"; }

  Tensor draw(int64_t count, Rng& rng) const override {
    return model_.image(sample_codes(model_.transformer, count, run().config.causal_sampler, rng));
  }
  Tensor tokens(const Tensor& images) const override {
    return model_.transformer.features(model_.codes(to(images, on_)));
  }
  int64_t grid() const override { return model_.config.size; }

 private:
  Options on_;
  Igpt model_;
};

// The ViT that learned from labels.
class ClassifierSystem : public System {
 public:
  ClassifierSystem(const std::string& folder, const RunConfig& run, Options on, Weights weights)
      : System(run), on_(on), encoder_(encoder_of_classifier(folder, run, weights, on)) {}
  std::string name() const override { return "classifier"; }
  Tensor tokens(const Tensor& images) const override {
    const NoGrad no_grad;
    return encoder_->patch_tokens(Var(to(images, on_)), {}).value();
  }

 private:
  Options on_;
  std::unique_ptr<EncoderBackbone> encoder_;
};

}  // namespace

Tensor System::draw(int64_t, Rng&) const { fail(ErrorKind::usage, name(), " does not generate images"); }

std::unique_ptr<System> open_system(const std::string& run_folder, Options options, Weights weights) {
  return open_system(run_folder, read_run_config(run_folder), options, weights);
}

std::unique_ptr<System> open_system(const std::string& run_folder, RunConfig run, Options options, Weights weights) {
  if (run.stage == "addp") return std::make_unique<AddpSystem>(run_folder, run, options, weights);
  if (run.stage == "predictor") return std::make_unique<MageSystem>(run_folder, run, options, weights);
  if (run.stage == "gpt") return std::make_unique<GptSystem>(run_folder, run, options, weights);
  if (run.stage == "igpt") return std::make_unique<IgptSystem>(run_folder, run, options, weights);
  if (run.stage == "finetune") return std::make_unique<ClassifierSystem>(run_folder, run, options, weights);
  fail(ErrorKind::usage, run_folder, ": is a run of stage ", run.stage,
       ", which neither generates nor gives features; expected addp, predictor, gpt, igpt or finetune");
}

Tensor mean_over_tokens(const Tensor& tokens) { return mean_over_cells(tokens, 1); }

Tensor mean_over_cells(const Tensor& tokens, int64_t cells) { return average_cells(tokens, cells); }

}  // namespace addp
