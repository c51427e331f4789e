// The neighbouring systems: ViT-VQGAN's tokenizer by itself, and each of them through the program as a user runs it.
#include <cmath>
#include <map>

#include "data/image.h"
#include "examples/systems.h"
#include "examples/token_backbones.h"
#include "nn/vit_vqgan.h"
#include "tensor/dispatch.h"
#include "tests/compare.h"
#include "tests/drive.h"

namespace addp {
namespace {

VitVqganConfig small_tokenizer() {
  return {.image_size = 12,
          .patch_size = 4,
          .width = 16,
          .depth = 1,
          .heads = 2,
          .decoder_depth = 1,
          .mlp_ratio = 2,
          .codebook_size = 7,
          .codebook_dim = 4};
}

// The neighbours' runs, trained once: a vision tokenizer, and the causal models.
struct Neighbours {
  ScratchFolder folder;
  std::string vit_vqgan = folder / "vit-vqgan", gpt = folder / "gpt", igpt = folder / "igpt";
  Neighbours() {
    const int64_t steps = kSanitized ? 4 : 20;
    run_well(train_tiny("vit-vqgan", vit_vqgan, steps));
    run_well(train_tiny("igpt", igpt, steps));
    run_well(train_tiny("gpt", gpt, steps) + Words{"--tokenizer", vit_vqgan});
  }
};
const Neighbours& neighbours() {
  static const Neighbours trained;
  return trained;
}

const std::vector<std::string> kStages = {"vit-vqgan", "gpt", "igpt"};

// `train STAGE` with a moving average of the weights and, for gpt, a tokenizer.
Words train_neighbour(const std::string& stage, const std::string& run, int64_t steps) {
  const std::string fields = "train_" + (stage == "vit-vqgan" ? "vit_vqgan" : stage);
  const Words words = train_tiny(stage, run, steps) + Words{"--set", fields + ".ema_decay=0.9"};
  return stage == "gpt" ? words + Words{"--tokenizer", neighbours().vit_vqgan} : words;
}

void check_same_files(const std::string& run, const std::string& expected) {
  for (const char* file : {"weights.safetensors", "optimizer.safetensors", "ema.safetensors"}) {
    INFO(run, " ", file);
    CHECK(bytes_of(newest(run, file)) == bytes_of(newest(expected, file)));
  }
}

}  // namespace

TEST_CASE("vit-vqgan: codes have length 1, and the nearest is the one of the largest cosine") {
  VitVqgan model(small_tokenizer(), kDouble);
  initialize(model, Rng(3));
  const NoGrad no_grad;
  Rng rng(4);
  const Var h = model.encode(Var(rng.uniform({2, 3, 12, 12}, kDouble)));
  REQUIRE(h.shape() == Shape{2, 4, 3, 3});
  const Quantized quantized = model.quantize(h);
  const auto z = to_vector<double>(permute(h, {0, 2, 3, 1}).value());
  const auto e = to_vector<double>(permute(quantized.z_q, {0, 2, 3, 1}).value());
  const auto embedded = to_vector<double>(model.embed_codes(quantized.codes).value());
  const auto table = to_vector<double>(model.quantizer.embedding.weight.value());
  const auto dot = [](const double* a, const double* b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  };
  double loss = 0;
  for (size_t l = 0; l < 18; ++l) {
    CHECK(std::sqrt(dot(&z[4 * l], &z[4 * l])) == doctest::Approx(1).epsilon(1e-4));
    CHECK(std::sqrt(dot(&e[4 * l], &e[4 * l])) == doctest::Approx(1).epsilon(1e-4));
    size_t best = 0;
    const auto cosine = [&](size_t k) {
      return dot(&z[4 * l], &table[4 * k]) / std::sqrt(dot(&table[4 * k], &table[4 * k]));
    };
    for (size_t k = 1; k < 7; ++k) best = cosine(k) > cosine(best) ? k : best;
    CHECK(quantized.codes.ptr<int64_t>()[l] == static_cast<int64_t>(best));
    for (size_t d = 0; d < 4; ++d) {
      CHECK(e[4 * l + d] == embedded[4 * l + d]);
      loss += 1.25 * (e[4 * l + d] - z[4 * l + d]) * (e[4 * l + d] - z[4 * l + d]) / 72;
    }
  }
  CHECK(quantized.codebook_loss.item() == doctest::Approx(loss).epsilon(1e-9));
  CHECK(same_bits(model.encode_codes(Var(Rng(4).uniform({2, 3, 12, 12}, kDouble))), quantized.codes));
}

TEST_CASE("vit-vqgan: decoding a map of embeddings and decoding codes are the same, patches lie where they belong") {
  VitVqgan model(small_tokenizer(), kDouble);
  initialize(model, Rng(5));
  const NoGrad no_grad;
  const Tensor codes = from_vector<int64_t>({0, 1, 2, 3, 4, 5, 6, 0, 1}, {1, 9});
  const Tensor from_codes = model.decode_tokens(model.embed_codes(codes)).value();
  REQUIRE(from_codes.shape() == Shape{1, 3, 12, 12});
  const Var map = reshape(permute(model.embed_codes(codes), {0, 2, 1}), {1, 4, 3, 3});
  CHECK(same_bits(model.decode(map).value(), from_codes));

  // Without blocks each patch follows from its own code alone.
  model.decoder_blocks.clear();
  copy_into(model.decoder_pos_embed.value(), zeros({1, 9, 16}, kDouble));
  const auto pixels = to_vector<double>(model.decode_tokens(model.embed_codes(codes)).value());
  const auto at = [&](int64_t patch, int64_t c, int64_t y, int64_t x) {
    return pixels[static_cast<size_t>((c * 12 + patch / 3 * 4 + y) * 12 + patch % 3 * 4 + x)];
  };
  for (int64_t i = 0; i < 48; ++i) {
    CHECK(at(0, i / 16, i / 4 % 4, i % 4) == at(7, i / 16, i / 4 % 4, i % 4));
    CHECK(at(1, i / 16, i / 4 % 4, i % 4) == at(8, i / 16, i / 4 % 4, i % 4));
  }
  CHECK(at(0, 0, 0, 0) != at(1, 0, 0, 0));
}

TEST_CASE("program: the neighbours' losses fall, and their ten steps are the same for 1, 2 and 5 threads") {
  const ScratchFolder folder;
  const int64_t steps = kSanitized ? 3 : 10;
  for (const std::string& stage : kStages) {
    INFO(stage);
    const auto trained = [&](const std::string& threads) {
      const std::string run = folder / (stage + threads);
      run_well(train_neighbour(stage, run, steps) + Words{"--threads", threads});
      return run;
    };
    const std::string one = trained("1");
    const auto loss = curve(one);
    REQUIRE(loss.size() == static_cast<size_t>(steps));
    if (!kSanitized) CHECK(loss.back().second < loss.front().second);
    for (const std::string threads : {"2", "5"}) {
      const std::string run = trained(threads);
      CHECK(curve(run) == loss);
      check_same_files(run, one);
    }
  }
}

TEST_CASE("program: a neighbour's run that lost its last checkpoints and is resumed ends as one that never stopped") {
  const ScratchFolder folder;
  for (const std::string& stage : kStages) {
    INFO(stage);
    const Words extra = {"--save-every", "2", "--keep", "9"};
    const std::string whole = folder / (stage + "_whole"), run = folder / stage;
    run_well(train_neighbour(stage, whole, 8) + extra);
    run_well(train_neighbour(stage, run, 8) + extra);
    for (const char* step : {"step_8", "step_6"}) fs::remove(fs::path(run) / "checkpoints" / step / "DONE");
    run_well(train_neighbour(stage, run, 8) + extra + Words{"--resume"});
    check_same_files(run, whole);
    CHECK(curve(run) == curve(whole));
  }
}

TEST_CASE("program: every system is sampled and probed, with trained and with random weights") {
  const ScratchFolder folder;
  const Neighbours& n = neighbours();
  const TinyPipeline& tiny = tiny_pipeline();
  run_well({"reconstruct", "--run", n.vit_vqgan, "--count", "4", "--out", folder / "vit"});
  CHECK(fs::exists(folder / "vit/reconstructions_test.png"));
  const std::map<std::string, std::string> systems = {
      {"ViT-VQGAN", n.gpt}, {"iGPT", n.igpt}, {"MAGE", tiny.predictor}, {"ADDP", tiny.addp}};
  for (const auto& [name, run] : systems) {
    INFO(name);
    const std::string out = folder / name;
    run_well({"sample", "--run", run, "--count", "5", "--batch", "3", "--out", out});
    CHECK(read_image(out + "/samples.png").width >= 5 * 16);
    CHECK(read_image(out + "/images/000004.png").width == 16);
    const Words probe = {"probe", "--run", run, "--train", "64", "--test", "32", "--steps", "20"};
    CHECK(contains(run_well(probe).out, "linear probe on " + name + " features, "));
    CHECK(contains(run_well(probe + Words{"--random-weights"}).out, name + " features, random weights"));
  }
  // Settings of the sampler reach it.
  const auto drawn = [&](const std::string& name, const Words& words) {
    run_well(Words{"sample", "--run", n.igpt, "--count", "2", "--out", folder / name} + words);
    return bytes_of(folder / (name + "/samples.png"));
  };
  const std::string usual = drawn("usual", {});
  CHECK(drawn("again", {}) == usual);
  CHECK(drawn("seed", {"--seed", "2"}) != usual);
  CHECK(drawn("k", {"--top-k", "1"}) == drawn("greedy", {"--temperature", "0"}));
  CHECK(drawn("p", {"--top-p", "0.3"}) != usual);
}

TEST_CASE("systems: features at each token, the start weights as the control") {
  const Neighbours& n = neighbours();
  const TinyPipeline& tiny = tiny_pipeline();
  Rng rng(1);
  const Tensor images = rng.uniform({3, 3, 16, 16});
  for (const auto& [run, L] :
       std::map<std::string, int64_t>{{n.gpt, 16}, {n.igpt, 64}, {tiny.predictor, 16}, {tiny.addp, 16}}) {
    INFO(run);
    const auto system = open_system(run, Options());
    const auto random = open_system(run, Options(), Weights::random);
    const Tensor tokens = system->tokens(images);
    CHECK(tokens.shape() == Shape{3, L, 32});
    CHECK(system->grid() * system->grid() == L);
    CHECK(all_finite(tokens));
    CHECK(largest_difference(tokens, random->tokens(images)) > 1e-3);
    CHECK(mean_over_tokens(tokens).shape() == Shape{3, 32});
    CHECK(mean_over_cells(tokens, 2).shape() == Shape{3, 4 * 32});
    Rng draws(2);
    const Tensor drawn = system->draw(2, draws);
    CHECK(drawn.shape() == images.view(0, {2, 3, 16, 16}).shape());
    CHECK(largest_difference(drawn, clamp(Var(drawn), 0, 1).value()) == 0);
  }
}

TEST_CASE(
    "recognition: every neighbour is a backbone; its tokens follow its run's weights and any multiple of its size") {
  const Neighbours& n = neighbours();
  Rng rng(7);
  for (const std::string& run : {n.gpt, n.igpt, tiny_pipeline().predictor}) {
    INFO(run);
    const RunConfig config = read_run_config(run);
    const Var image(rng.uniform({2, 3, 16, 16}));
    const auto backbone = token_backbone(run, config, {}, Options());
    const Var tokens = backbone->patch_tokens(image, {});
    REQUIRE(tokens.shape() == Shape{2, backbone->grid * backbone->grid, 32});
    // MAGE's representation is what the backbone gives; causal models are fine-tuned whole, their features lie within.
    if (config.stage == "predictor")
      CHECK(largest_difference(tokens.value(), open_system(run, Options())->tokens(image.value())) < 1e-5);
    backward(mean(square(tokens)));
    int64_t trained = 0;
    backbone->visit("", [&](const std::string& name, Var& var, Role role) {
      if (role == Role::buffer || !var.grad().defined()) return;
      CHECK_MESSAGE(all_finite(var.grad()), name);
      trained += var.numel();
    });
    CHECK(trained > 2 * 12 * 32 * 32);  // two blocks and more

    const auto larger = token_backbone(run, config, {.image_size = 32}, Options());
    CHECK(larger->grid == 2 * backbone->grid);
    CHECK(larger->patch_tokens(Var(rng.uniform({1, 3, 32, 32})), {}).shape() ==
          Shape{1, 4 * backbone->grid * backbone->grid, 32});
  }
  CHECK_THROWS_AS(token_backbone(n.vit_vqgan, read_run_config(n.vit_vqgan), {}, Options()), Error);
  const ScratchFolder folder;
  for (const std::string& run : {n.gpt, n.igpt, tiny_pipeline().predictor})
    run_well({"train", "finetune", "--data", "shapes", "--limit", "64", "--encoder", run, "--run",
              folder / fs::path(run).filename().string(), "--steps", "3"});
}

TEST_CASE("cuda: the neighbours train on it with the CPU's losses, and draw the CPU's tokens one by one") {
  const ScratchFolder folder;
  const Words device = {"--device", cuda_backend_name(), "--batch", "4"};
  for (const std::string& stage : kStages) {
    INFO(stage);
    run_well(train_neighbour(stage, folder / stage, 2) + device);
    run_well(train_neighbour(stage, folder / (stage + "_cpu"), 2) + Words{"--batch", "4"});
    const auto found = curve(folder / stage), expected = curve(folder / (stage + "_cpu"));
    REQUIRE(found.size() == 2);
    for (size_t i = 0; i < 2; ++i) CHECK(found[i].second == doctest::Approx(expected[i].second).epsilon(1e-4));
  }
  const auto system = open_system(neighbours().igpt, Options()),
             on_device = open_system(neighbours().igpt, Options{DType::f32, Device::cuda});
  Rng draws(3), same(3);
  const Tensor image = system->draw(2, draws), image_on_device = on_device->draw(2, same);
  CHECK(largest_difference(image, image_on_device) < 1e-6);
}

TEST_CASE("program: neighbours say what they need") {
  const Neighbours& n = neighbours();
  const ScratchFolder folder;
  const Words gpt = {"train", "gpt", "--preset", "tiny", "--data", "shapes", "--run", folder / "run"};
  check_fails(2, gpt, {"--tokenizer", "addp train vit-vqgan"});
  check_fails(2, gpt + Words{"--tokenizer", n.igpt}, {n.igpt, "stage igpt", "expected vqgan or vit-vqgan"});
  check_fails(2, {"sample", "--run", n.vit_vqgan}, {n.vit_vqgan, "expected addp, predictor, gpt, igpt or finetune"});
  check_fails(2, {"sample", "--run", n.igpt, "--inpaint", "top"}, {"--inpaint", "only ADDP"});
  check_fails(2, {"train", "igpt", "--preset", "tiny", "--run", folder / "run", "--set", "igpt.size=5"},
              {"igpt.size 5"});
}

}  // namespace addp
