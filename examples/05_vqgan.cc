// Lesson 5: the tokenizer. A small VQGAN turns drawn shapes into a grid of codes and back.
// Build and run:  make all && build/05_vqgan      (some seconds; writes build/05_vqgan.png)
#include <cstdio>

#include "autograd/ops.h"
#include "data/loader.h"
#include "nn/codebook_ema.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "nn/vqgan.h"

using namespace addp;

int main() {
  constexpr int64_t kSteps = 150;
  VqganConfig config;
  config.ch = 16;
  config.ch_mult = {1, 2, 2};  // two halvings: a code covers 4 x 4 pixels
  config.norm_groups = 8;
  config.codebook_size = 64;
  config.codebook_dim = 8;
  Vqgan vqgan(config, Options());
  const Rng rng(1);
  initialize(vqgan, rng.fork("weights"));

  // The codebook follows moving averages of the encoder's outputs; codes that nobody uses get a new place. The other
  // weights follow gradients, which pass the quantizer as if it were not there (straight-through).
  CodebookEma codebook(vqgan.quantizer, {});
  std::vector<NamedVar> trained;
  for (const NamedVar& p : parameters(vqgan)) {
    if (p.var.needs_grad()) trained.push_back(p);
  }
  AdamW optimizer(trained, {});

  LoaderOptions loading;
  loading.batch_size = 32;
  loading.image_size = 16;
  Loader loader(make_shapes(4096, Split::train, 16), loading);
  CodebookUsage usage(config.codebook_size);
  double first = 0, last = 0;
  for (int64_t step = 0; step < kSteps; ++step) {
    Rng step_rng = rng.fork(static_cast<uint64_t>(step));
    const Var image(loader.next().images);
    const Var z = vqgan.encode(image);
    if (step == 0) codebook.start(z.value(), step_rng);  // k-means on the first batch
    const Quantized q = vqgan.quantize(z);
    const Var reconstruction = vqgan.decode(q.z_q);
    const Var error = mean(abs(reconstruction - image));
    const Tensor z_value = z.value();
    if (step == 0) first = error.item();
    last = error.item();
    if (step % 30 == 0) std::printf("step %3lld  mean |x - rec| %.3f\n", static_cast<long long>(step), last);
    backward(error + q.codebook_loss);
    optimizer.step(2e-3);
    codebook.update(z_value, q.codes, step_rng);
    if (step >= kSteps - 50) usage.add(q.codes);
  }
  std::printf("mean |x - rec| %.3f -> %.3f; %.0f %% of the codes in use, perplexity %.1f\n", first, last,
              100 * usage.used_share(), usage.perplexity());

  // Eight test images above what is left of them after 16 codes each.
  NoGrad no_grad;
  loading.batch_size = 8;
  loading.shuffle = false;
  const Var image(BatchMaker(make_shapes(64, Split::test, 16), loading).make(0).images);
  const Var again = vqgan.decode_tokens(vqgan.embed_codes(vqgan.encode_codes(image)));
  write_png("build/05_vqgan.png", image_grid(concat({image, again}, 0).value(), 8));
  std::printf("build/05_vqgan.png: test images and their reconstructions\n");
  return last < 0.5 * first ? 0 : 1;
}
