// A training step as the device sees it: what the host waits for, what memory is taken, and the step as a CUDA graph.
#include <doctest/doctest.h>

#include "addp/addp.h"
#include "addp/objective.h"
#include "addp/token_predictor.h"
#include "autograd/ops.h"
#include "cuda/graph.h"
#include "cuda/memory_pool.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "nn/vqgan.h"
#include "tensor/dispatch.h"
#include "tests/compare.h"
#include "tests/drive.h"

#ifdef ADDP_CUDA_EMULATOR
#include "cuda/emulator/emulator.h"
#endif

using namespace addp;

namespace {

constexpr Options kOn{DType::f32, Device::cuda};

// The networks of the tiny preset, and a batch.
struct Workshop {
  explicit Workshop(Options on = kOn) : vqgan(config.vqgan, on), predictor(config, on), model(config, on) {
    initialize(vqgan, Rng(1).fork("vqgan"));
    initialize(predictor, Rng(1).fork("predictor"));
    initialize(model, Rng(1).fork("addp"));
  }
  Tensor image(uint64_t seed) const {
    Rng rng(seed);
    return rng.uniform({2, 3, config.image_size, config.image_size});
  }

  Config config = preset("tiny");
  Vqgan vqgan;
  TokenPredictor predictor;
  Addp model;
};

}  // namespace

#ifdef ADDP_CUDA_EMULATOR
TEST_CASE("cuda: a training step waits for nothing, and takes no memory after the first") {
  Workshop w;
  // The same masks each time, so that all steps are of one size.
  Rng draws(3);
  const NestedMasks nested = draw_nested_masks(2, w.config.tokens(), w.config.masking, draws, kOn);
  const MageMasks mage = draw_mage_masks(2, w.config.tokens(), w.config.masking, draws, kOn);
  AdamW addp_optimizer(parameters(w.model), {.clip_norm = 1}), predictor_optimizer(parameters(w.predictor), {});
  WeightEma average(parameters(w.model), 0.9);
  const auto addp_step = [&](uint64_t seed) {
    Rng rng(seed);
    const Tensor codes = w.vqgan.encode_codes(Var(to(w.image(seed), kOn)));
    const Var loss = training_step(w.model, w.vqgan, w.predictor, codes, nested, Mode{true, &rng}).loss;
    backward(loss);
    addp_optimizer.start_step(1e-3);
    average.update();
  };
  const auto predictor_step = [&](uint64_t seed) {
    Rng rng(seed);
    const Tensor codes = w.vqgan.encode_codes(Var(to(w.image(seed), kOn)));
    backward(w.predictor.forward(codes, mage, Mode{true, &rng}).loss);
    predictor_optimizer.start_step(1e-3);
  };
  for (uint64_t step = 0; step < 2; ++step) {
    emulator::reset_counters();
    addp_step(step);
    predictor_step(step);
    const emulator::HostCalls calls = emulator::host_calls();
    INFO("step ", step);
    CHECK(calls.waits == 0);
    if (step > 0) CHECK(calls.allocations == 0);
    if (step > 0) CHECK(calls.pool_growths == 0);
    // What is read for the log comes afterwards.
    CHECK(addp_optimizer.finish_step() > 0);
    CHECK(predictor_optimizer.finish_step() > 0);
    CHECK(emulator::host_calls().waits > 0);
  }
}
#endif

TEST_CASE("cuda: a training step recorded as a graph and replayed gives the bits of the plain one") {
  constexpr int kSteps = 3;
  // Loss and weights after each step of the token predictor; everything that may vary does.
  const auto train = [&](bool with_graph) {
    Workshop w;
    AdamW optimizer(parameters(w.predictor), {.clip_norm = 0.5});
    const Tensor image = zeros({2, 3, w.config.image_size, w.config.image_size}, kOn), loss = zeros({}, kOn);
    PlacedMasks masks;
    std::vector<Tensor> results;
    const auto step = [&](Rng rng) {
      const Tensor codes = w.vqgan.encode_codes(Var(image));
      const Var value = w.predictor.forward(codes, masks, Mode{true, &rng}).loss;
      backward(value);
      copy_into(loss, value.value());
      optimizer.launch();
    };
    std::unique_ptr<Graph> graph;
    for (int s = 0; s < kSteps; ++s) {
      Rng rng = Rng(7).fork(static_cast<uint64_t>(s));
      const MageMasks drawn = draw_mage_masks(2, w.config.tokens(), w.config.masking, rng, kOn);
      const PlacedMasks placed = place(drawn.mask_all, drawn.mask_dropped, kOn);
      if (s == 0) {
        masks = placed;
      } else {
        copy_into(masks.mask_all, placed.mask_all);
        copy_into(masks.kept, placed.kept);
        copy_into(masks.restore, placed.restore);
      }
      copy_into(image, w.image(static_cast<uint64_t>(s)));
      optimizer.set_schedule(1e-2 / (s + 1));
      if (!with_graph) {
        step(rng);
      } else {
        if (!graph) graph = std::make_unique<Graph>(current_cuda(), [&] { step(rng); });
        graph->launch(rng.stream() ^ Rng(7).fork(uint64_t{0}).stream());
      }
      CHECK(optimizer.finish_step() > 0);
      results.push_back(clone(loss));
      results.push_back(clone(optimizer.arena().values()));
    }
    return results;
  };
  const std::vector<Tensor> plain = train(false), replayed = train(true);
  for (size_t i = 0; i < plain.size(); ++i) {
    INFO("result ", i);
    CHECK(same_bits(plain[i], replayed[i]));
  }
  CHECK_FALSE(same_bits(plain[0], plain[2]));
}

TEST_CASE("cuda: what a graph cannot hold is refused") {
  const Cuda dev = current_cuda();
  const Tensor x = ones({4}, kOn);
  Tensor outside = ones({4}, kOn);
  const auto refused = [&](const std::function<void()>& record) {
    return message_of(ErrorKind::device, [&] { Graph graph(dev, record); });
  };
  CHECK(contains(refused([&] { copy_into(x, zeros({4})); }), "cannot be recorded"));
  CHECK(contains(refused([&] { outside = {}; }), "memory held"));
#ifdef ADDP_CUDA_EMULATOR
  CHECK(contains(refused([&] { to_vector<float>(x); }), "graph"));
  CHECK(contains(refused([&] { synchronize(dev); }), "graph"));
#endif
  CHECK(to_vector<float>(x) == std::vector<float>(4, 1.0f));
}
