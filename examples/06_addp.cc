// Lesson 6: the method. All three stages of ADDP at the smallest size, then an image from nothing, step by step.
// Build and run:  make all && build/06_addp      (some seconds; for pictures worth looking at, `make demo`)
#include <cstdio>

#include "addp/addp.h"
#include "addp/objective.h"
#include "addp/sampler.h"
#include "addp/token_predictor.h"
#include "autograd/ops.h"
#include "data/loader.h"
#include "nn/codebook_ema.h"
#include "nn/init.h"
#include "nn/optimizer.h"

using namespace addp;

namespace {

// Trains one model: `loss_of` gives the loss of a batch.
template <class LossOf>
void train(const char* name, const std::vector<NamedVar>& parameters, Loader& loader, int64_t steps, double lr,
           const LossOf& loss_of) {
  AdamwConfig recipe;
  recipe.clip_norm = 3;
  AdamW optimizer(parameters, recipe);
  const Rng rng(1);
  for (int64_t step = 0; step < steps; ++step) {
    Rng step_rng = rng.fork(name).fork(static_cast<uint64_t>(step));
    const Var loss = loss_of(loader.next().images, step, step_rng);
    if (step % 20 == 0 || step + 1 == steps) {
      std::printf("%-10s step %3lld  loss %.3f\n", name, static_cast<long long>(step), loss.item());
    }
    backward(loss);
    optimizer.step(lr);
  }
}

}  // namespace

int main() {
  const Config config = preset("tiny");
  const Rng rng(1);
  LoaderOptions loading;
  loading.batch_size = 16;
  loading.image_size = config.image_size;
  Loader loader(make_shapes(2048, Split::train, config.image_size), loading);

  // Stage 1: images to codes and back.
  Vqgan vqgan(config.vqgan, Options());
  initialize(vqgan, rng.fork("vqgan"));
  train("vqgan", parameters(vqgan), loader, 41, 1e-3, [&](const Tensor& images, int64_t, Rng&) {
    const Var image(images);
    const Quantized q = vqgan.quantize(vqgan.encode(image));
    return mean(abs(vqgan.decode(q.z_q) - image)) + q.codebook_loss;
  });
  set_trainable(vqgan, false);

  // Stage 2: from some codes, how likely is each code at the other places? (MAGE)
  TokenPredictor predictor(config, Options());
  initialize(predictor, rng.fork("predictor"));
  train("predictor", parameters(predictor), loader, 41, 1e-3, [&](const Tensor& images, int64_t, Rng& step_rng) {
    return predictor.forward(vqgan.encode_codes(Var(images)), step_rng, Mode{true, &step_rng}).loss;
  });
  set_trainable(predictor, false);

  // Stage 3: codes -> noisy pixels -> codes (Sec. 3.2, 3.3). addp/objective.h has its five steps one by one.
  Addp model(config, Options());
  initialize(model, rng.fork("addp"));
  train("addp", parameters(model), loader, 41, 1e-3, [&](const Tensor& images, int64_t, Rng& step_rng) {
    const Tensor codes = vqgan.encode_codes(Var(images));
    return training_step(model, vqgan, predictor, codes, step_rng, Mode{true, &step_rng}).loss;
  });

  // Generation (Sec. 3.4): start with every token unreliable and alternate.
  NoGrad no_grad;
  Rng sampling = rng.fork("sample");
  SamplerConfig sampler = config.sampler;
  sampler.steps = 8;
  const Samples samples = sample(
      model, vqgan, start_sampling(4, config.tokens(), Options()), sampler, sampling, [&](const SamplerState& state) {
        std::printf("sampling step %lld: %lld of %lld tokens are still unreliable\n",
                    static_cast<long long>(state.step), static_cast<long long>(ones_per_row(state.mask)),
                    static_cast<long long>(config.tokens()));
      });
  std::printf("four images of shape [3, %lld, %lld], all finite: %s\n", static_cast<long long>(samples.image.dim(2)),
              static_cast<long long>(samples.image.dim(3)), all_finite(samples.image) ? "yes" : "no");
  return all_finite(samples.image) ? 0 : 1;
}
