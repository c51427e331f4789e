// Lesson 4: a model, an optimizer, a training loop. A small Vision Transformer learns to name drawn shapes.
// Build and run:  make all && build/04_vit_classifier      (some seconds)
#include <cstdio>

#include "autograd/codes.h"
#include "autograd/ops.h"
#include "data/loader.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "nn/vit.h"

using namespace addp;

namespace {

// Share of right answers on `count` images.
double accuracy(const VisionTransformer& model, const std::shared_ptr<const Dataset>& data, int64_t count) {
  NoGrad no_grad;  // nothing is recorded, so nothing is kept for a backward pass
  LoaderOptions options;
  options.batch_size = count;
  options.image_size = 16;
  options.shuffle = false;
  const Batch batch = BatchMaker(data, options).make(0);
  const std::vector<int64_t> found = to_vector<int64_t>(argmax(model(Var(normalize(batch.images))).value()));
  const std::vector<int64_t> right = to_vector<int64_t>(batch.labels);
  int64_t hits = 0;
  for (int64_t i = 0; i < count; ++i) hits += found[i] == right[i];
  return static_cast<double>(hits) / static_cast<double>(count);
}

}  // namespace

int main() {
  constexpr int64_t kSteps = 400;
  const auto train = make_shapes(4096, Split::train, 16), test = make_shapes(512, Split::test, 16);

  // A model is a plain struct. One visitor names every tensor; counting, initialising, saving and optimizing use it.
  VitConfig config;
  config.image_size = 16;
  config.patch_size = 4;
  config.width = 48;
  config.depth = 3;
  config.heads = 3;
  config.classes = train->classes();
  VisionTransformer model(config, Options());
  initialize(model, Rng(1));
  std::printf("%lld parameters, the first is %s\n", static_cast<long long>(count_parameters(model)),
              parameters(model).front().name.c_str());

  AdamwConfig recipe;
  recipe.clip_norm = 1;
  AdamW optimizer(parameters(model), recipe);
  const CosineSchedule schedule{3e-3, 0, 20, kSteps};

  LoaderOptions loading;
  loading.batch_size = 64;
  loading.image_size = 16;
  Loader loader(train, loading);  // one thread prepares batches ahead
  for (int64_t step = 0; step < kSteps; ++step) {
    const Batch batch = loader.next();
    const Var logits = model(Var(normalize(batch.images)));
    const Var loss = cross_entropy(logits, batch.labels, Tensor(), 0.0);
    if (step % 40 == 0) std::printf("step %3lld  loss %.3f\n", static_cast<long long>(step), loss.item());
    backward(loss);
    optimizer.step(schedule.at(static_cast<double>(step)));  // also clears the gradients
  }

  const double share = accuracy(model, test, 512);
  std::printf("test accuracy %.1f %% (%lld classes, chance %.1f %%)\n", 100 * share,
              static_cast<long long>(train->classes()), 100.0 / static_cast<double>(train->classes()));
  return share > 0.4 ? 0 : 1;
}
