// The command behind op_cases(), and the models of the tiny preset.
#include "examples/cmd_gradcheck.h"

#include <cstdio>

#include "addp/objective.h"
#include "addp/recognition.h"
#include "addp/token_predictor.h"
#include "autograd/gradcheck.h"
#include "autograd/ops.h"
#include "examples/run_config.h"
#include "nn/discriminator.h"
#include "nn/igpt.h"
#include "nn/init.h"
#include "nn/vit_vqgan.h"
#include "nn/vqgan.h"

namespace addp {
namespace {

constexpr double kTolerance = 1e-6;
constexpr Options kDouble{DType::f64, Device::cpu};
constexpr int64_t kSamples = 2;      // elements compared per parameter of a model
constexpr double kShortStep = 1e-6;  // for models with kinks (LeakyReLU), which a step must not cross

class Table {
 public:
  void add(const std::string& what, const GradcheckResult& r) {
    const bool good = r.worst_error <= kTolerance;
    failures_ += good ? 0 : 1;
    ++rows_;
    if (!(r.worst_error <= worst_.worst_error)) {
      worst_ = r;
      worst_what_ = what;
    }
    std::printf("%-22s %s  worst %.1e at %s[%lld]: analytic %.9g, numeric %.9g (%lld compared)\n", what.c_str(),
                good ? "ok  " : "FAIL", r.worst_error, r.name.c_str(), static_cast<long long>(r.index), r.analytic,
                r.numeric, static_cast<long long>(r.checked));
    std::fflush(stdout);
  }
  int finish() const {
    std::printf("gradcheck: %d of %d passed, worst %.1e (%s, %s[%lld])\n", rows_ - failures_, rows_, worst_.worst_error,
                worst_what_.c_str(), worst_.name.c_str(), static_cast<long long>(worst_.index));
    return failures_ == 0 ? 0 : static_cast<int>(ErrorKind::check_failed);
  }

 private:
  int rows_ = 0, failures_ = 0;
  GradcheckResult worst_;
  std::string worst_what_;
};

// A scalar in which every element has its own weight, so that no gradient cancels.
Var weighted_sum(const Var& y) {
  Rng rng(7);
  return sum(mul(y, Var(rng.uniform(y.shape(), y.options()))));
}

void check_ops(Table& table, const Rng& rng) {
  for (const OpCase& op : op_cases()) {
    Rng numbers = rng.fork(op.name);
    std::vector<Var> inputs;
    std::vector<NamedVar> named;
    for (const Shape& shape : op.shapes) {
      const Var x(numbers.uniform(shape, kDouble));
      inputs.emplace_back(affine(x, op.high - op.low, op.low).value(), true);
      named.push_back({concat_text("input", named.size()), inputs.back()});
    }
    table.add(op.name, gradcheck([&] { return weighted_sum(op.run(inputs)); }, named));
  }
}

// Norm weights start at 1 and biases at 0, where some gradients vanish; a small shift makes every one count.
template <class Module>
void shake(Module& module, Rng rng) {
  NoGrad no_grad;
  for (NamedVar& p : parameters(module)) {
    p.var.set_value(add(p.var, 0.05 * Var(rng.normal(p.var.shape(), kDouble))).value());
  }
}

// Parameters whose gradient is stopped somewhere on purpose, where a difference quotient sees more than the gradient
// does: the codebook (codes jump), and the word embeddings, which the heads read detached.
std::vector<NamedVar> without_stopped(std::vector<NamedVar> list) {
  std::erase_if(list, [](const NamedVar& p) {
    return p.name == "quantize.embedding.weight" || p.name == "token_emb.weight" ||
           p.name == "token_emb.word_embeddings.weight";
  });
  return list;
}

void check_models(Table& table, const Rng& rng) {
  const Config config = preset("tiny");
  const int64_t B = 2, L = config.tokens();
  Rng numbers = rng.fork("models");
  const Tensor image = numbers.uniform({B, 3, config.image_size, config.image_size}, kDouble);

  Vqgan vqgan(config.vqgan, kDouble);
  initialize(vqgan, rng.fork("vqgan"));
  shake(vqgan, rng.fork("shake"));
  // Codes do not move with the weights: the decoder is checked on the continuous latent, which is what the
  // straight-through estimator differentiates.
  table.add("vqgan", gradcheck([&] { return weighted_sum(vqgan.decode(vqgan.encode(Var(image)))); },
                               without_stopped(parameters(vqgan)), kSamples));

  Discriminator discriminator({3, 8, 2}, kDouble);
  initialize(discriminator, rng.fork("discriminator"));
  table.add("patchgan", gradcheck(
                            [&] {
                              return weighted_sum(discriminator(Var(image), Mode{true, nullptr}));
                            },
                            parameters(discriminator), kSamples, kShortStep));

  const Tensor codes = vqgan.encode_codes(Var(image));
  TokenPredictor predictor(config, kDouble);
  initialize(predictor, rng.fork("predictor"));
  shake(predictor, rng.fork("shake"));
  const MageMasks mage = draw_mage_masks(B, L, config.masking, numbers, kDouble);
  table.add("token predictor", gradcheck([&] { return predictor.forward(codes, mage).loss; },
                                         without_stopped(parameters(predictor)), kSamples));

  Addp model(config, kDouble);
  initialize(model, rng.fork("addp"));
  shake(model, rng.fork("shake"));
  const NestedMasks masks = draw_nested_masks(B, L, config.masking, numbers, kDouble);
  table.add("addp", gradcheck([&] { return training_step(model, vqgan, predictor, codes, masks).loss; },
                              without_stopped(parameters(model)), kSamples));

  // The neighbours. The vision tokenizer's latent is left continuous, as the VQGAN's.
  VitVqgan vit_vqgan(config.vit_vqgan_config(), kDouble);
  initialize(vit_vqgan, rng.fork("vit-vqgan"));
  shake(vit_vqgan, rng.fork("shake"));
  table.add("vit-vqgan", gradcheck([&] { return weighted_sum(vit_vqgan.decode(vit_vqgan.encode(Var(image)))); },
                                   without_stopped(parameters(vit_vqgan)), kSamples));

  CausalTransformer gpt(config.gpt_config(), kDouble);
  initialize(gpt, rng.fork("gpt"));
  shake(gpt, rng.fork("shake"));
  table.add("gpt", gradcheck([&] { return gpt.loss(gpt.forward(codes), codes); }, parameters(gpt), kSamples));

  Igpt igpt(config.igpt_config(), config.causal, kDouble);
  initialize(igpt, rng.fork("igpt"));
  shake(igpt, rng.fork("shake"));
  igpt.palette.fit(igpt.shrink(image), numbers);
  const Tensor colours = igpt.codes(image);
  table.add("igpt", gradcheck([&] { return igpt.transformer.loss(igpt.transformer.forward(colours), colours); },
                              parameters(igpt), kSamples));

  VisionTransformer classifier(classifier_config(config, 10), kDouble);
  initialize(classifier, rng.fork("classifier"));
  shake(classifier, rng.fork("classifier"));
  table.add("classifier",
            gradcheck([&] { return weighted_sum(classifier(Var(image))); }, parameters(classifier), kSamples));

  ConvClassifier judge(config.classifier, 10, kDouble);
  initialize(judge, rng.fork("judge"));
  table.add("convolutional classifier",
            gradcheck([&] { return weighted_sum(judge(Var(image)).logits); }, parameters(judge), kSamples));
}

}  // namespace

int cmd_gradcheck(const CommonOptions& options) {
  apply(options);
  Table table;
  const Rng rng(options.seed);
  check_ops(table, rng);
  check_models(table, rng);
  return table.finish();
}

}  // namespace addp
