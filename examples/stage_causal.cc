// The causal neighbours: a transformer that tells each token from those before it, over a tokenizer's codes (the second
// stage of ViT-VQGAN, or of VQGAN) and over the palette colours of small images (Image GPT).
#include "autograd/codes.h"
#include "examples/accuracy.h"
#include "examples/frozen.h"
#include "examples/model_stage.h"
#include "examples/pictures.h"
#include "examples/run_config.h"
#include "nn/igpt.h"

namespace addp {
namespace {

// Model: what is saved. Derived classes say what its transformer reads, and what an image of it is.
template <class Model>
class CausalStage : public ModelStage<Model> {
 public:
  CausalStage(const Config& config, const StageConfig& recipe, const std::string& name, Model model, uint64_t seed,
              Options on)
      : ModelStage<Model>(std::move(model), on), config_(config), name_(name), seed_(seed) {
    initialize(model_, Rng(seed).fork(name));
    trainer_.emplace(parameters(model_), recipe);
  }

  Scalars step(const Batch& batch, int64_t step, Rng& rng) override {
    const Tensor images = to(batch.images, on_);
    if (step == 0) prepare(images, rng);
    const Tensor codes = encode(images);
    const Var logits = transformer().forward(codes, Mode{true, &rng});
    return this->learn(transformer().loss(logits, codes), step, [&] {
      return Scalars{{"accuracy", share_equal(argmax(logits.value()), codes)}};
    });
  }

  std::vector<Picture> pictures(const Batch&) override {
    Rng rng = Rng(seed_).fork("pictures");
    return trainer_->with_average([&] {
      const Tensor image = decode(sample_codes(transformer(), 16, config_.causal_sampler, rng));
      return std::vector<Picture>{{name_ + "_samples", grid_png(to(image, Options()), 8)}};
    });
  }

 protected:
  using ModelStage<Model>::model_;
  using ModelStage<Model>::on_;
  using ModelStage<Model>::trainer_;

  virtual const CausalTransformer& transformer() const = 0;
  virtual void prepare(const Tensor&, Rng&) {}            // before the first step, with its images
  virtual Tensor encode(const Tensor& images) const = 0;  // [B, 3, Hi, Wi] -> [B, L]
  virtual Tensor decode(const Tensor& codes) const = 0;   // [B, L] -> [B, 3, Hi, Wi] in [0, 1]

  Config config_;
  std::string name_;
  uint64_t seed_;
};

class GptStage : public CausalStage<CausalTransformer> {
 public:
  GptStage(const Config& config, std::unique_ptr<Tokenizer> tokenizer, uint64_t seed, Options on)
      : CausalStage(config, config.train_gpt, "gpt", CausalTransformer(config.gpt_config(), on), seed, on),
        tokenizer_(std::move(tokenizer)) {}

  StateDict frozen_weights() override { return tokenizer_->weights(); }

 protected:
  const CausalTransformer& transformer() const override { return model_; }
  Tensor encode(const Tensor& images) const override { return tokenizer_->encode(images); }
  Tensor decode(const Tensor& codes) const override { return tokenizer_->decode(codes); }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
};

class IgptStage : public CausalStage<Igpt> {
 public:
  IgptStage(const Config& config, uint64_t seed, Options on)
      : CausalStage(config, config.train_igpt, "igpt", Igpt(config.igpt_config(), config.causal, on), seed, on) {}

 protected:
  const CausalTransformer& transformer() const override { return model_.transformer; }
  void prepare(const Tensor& images, Rng& rng) override {
    Rng palette = rng.fork("palette");
    model_.palette.fit(model_.shrink(images), palette);
  }
  Tensor encode(const Tensor& images) const override { return model_.codes(images); }
  Tensor decode(const Tensor& codes) const override { return model_.image(codes); }
};

}  // namespace

std::unique_ptr<Stage> make_gpt_stage(const Config& config, const TrainOptions& options) {
  check_as(ErrorKind::usage, !options.tokenizer.empty(),
           "train gpt: --tokenizer RUN is missing (the run folder of `addp train vit-vqgan` or `addp train vqgan`)");
  const Options on = network_options(options.common);
  auto tokenizer = load_tokenizer(options.tokenizer, on);
  check_fits(*tokenizer, config, options.tokenizer);
  return std::make_unique<GptStage>(config, std::move(tokenizer), options.common.seed, on);
}

std::unique_ptr<Stage> make_igpt_stage(const Config& config, const TrainOptions& options) {
  return std::make_unique<IgptStage>(config, options.common.seed, network_options(options.common));
}

}  // namespace addp
