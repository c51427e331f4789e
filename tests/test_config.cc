// Presets, their text form, and the sizes and names of the models that follow from them.
#include <doctest/doctest.h>

#include <map>

#include "addp/addp.h"
#include "addp/recognition.h"
#include "addp/token_predictor.h"
#include "tensor/allocator.h"
#include "tensor/safetensors.h"
#include "tests/compare.h"

namespace addp {

TEST_CASE("addp: every preset is consistent and survives being written as text") {
  for (const std::string& name : preset_names()) {
    const Config config = preset(name);
    CHECK_NOTHROW(config.validate());
    CHECK(list_fields(config_from_text(to_text(config))) == list_fields(config));
  }
  Config config = preset("tiny");
  set_field(config, "model.heads", "8");
  CHECK(config.model.heads == 8);
  CHECK_THROWS_AS(set_field(config, "model.heads", "eight"), Error);
  CHECK_THROWS_AS(set_field(config, "model.head", "8"), Error);
  set_field(config, "model.heads", "5");
  CHECK_THROWS_AS(config.validate(), Error);
}

TEST_CASE("addp: recompute_mlp reaches every block, is on for the paper's sizes, and old configurations lack it") {
  Config config = preset("tiny");
  CHECK(!config.model.recompute_mlp);
  CHECK(preset("base").model.recompute_mlp);
  CHECK(preset("large").predictor.recompute_mlp);
  CHECK(!config_from_text("model.width = 64\n", config).model.recompute_mlp);
  set_field(config, "model.recompute_mlp", "true");
  const auto recompute = [](const std::vector<Block>& blocks, bool expected) {
    CHECK(!blocks.empty());
    for (const Block& block : blocks) CHECK(block.mlp.recompute == expected);
  };
  const Addp model(config, {});
  recompute(model.encoder.blocks, true);
  recompute(model.decoder.decoder_blocks, true);
  recompute(VisionTransformer(classifier_config(config, 10, 0), {}).blocks, true);
  const TokenPredictor predictor(config, {});
  recompute(predictor.blocks, false);
  recompute(predictor.decoder_blocks, false);
}

// Parameters of blocks, head and embeddings, counted by hand from the paper's sizes.
static int64_t block_count(int64_t D) { return 12 * D * D + 13 * D; }
static int64_t head_count(int64_t D, int64_t V) { return V + D * D + D + 2 * D; }

TEST_CASE("addp: base and large have the official sizes") {
  for (const char* name : {"base", "large"}) {
    const Config config = preset(name);
    const int64_t D = config.model.width, V = 2025, L = 256, patch = 3 * 16 * 16;
    CHECK(config.vocabulary == V);
    CHECK(config.class_id == 1100);
    CHECK(config.mask_id == 2024);
    const int64_t shared = (config.model.depth + config.model.decoder_depth) * block_count(D) + head_count(D, V) +
                           D * D + D + 4 * D + patch * D + D + patch * D + patch;
    // One byte an element: only names and shapes matter, and large has a gigabyte in float32.
    constexpr Options kBytes = {DType::u8, Device::cpu};
    const int64_t in_addp = [&] {
      Addp model(config, kBytes);
      return count_parameters(model);
    }();
    release_cached_memory();
    const int64_t in_predictor = [&] {
      TokenPredictor predictor(config, kBytes);
      return count_parameters(predictor);
    }();
    release_cached_memory();
    CHECK(in_addp == shared + 2 * D + 2 * D + 7 * (L + 1) * D + V * D);
    CHECK(in_predictor == shared + 2 * D + 2 * D + 3 * (L + 1) * D + V * D + 257 * D);
  }
}

TEST_CASE("addp: names and shapes are those of the official checkpoints") {
  Config config = preset("base");
  config.image_size = 32, config.patch_size = 4;
  config.vqgan.codebook_size = 1024;
  config.predictor = config.model = {.width = 32, .depth = 2, .heads = 4, .decoder_depth = 2, .decoder_heads = 4};
  const auto compare = [](auto& module, const std::string& file) {
    std::map<std::string, Shape> ours, official;
    module.visit("", [&](const std::string& name, Var& var, Role) { ours[name] = var.shape(); });
    for (const auto& [name, tensor] : read_safetensors("tests/golden/" + file).tensors) official[name] = tensor.shape();
    CHECK(ours == official);
  };
  Addp model(config, kDouble);
  compare(model, "addp_weights.safetensors");
  TokenPredictor predictor(config, kDouble);
  compare(predictor, "mage_weights.safetensors");
  VisionTransformer classifier(classifier_config(config, 10), kDouble);
  compare(classifier, "vit_weights.safetensors");
}

}  // namespace addp
