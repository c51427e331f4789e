// PyTorch checkpoints: the released ones' names, nesting, element types and strides, both formats, and damage.
#include <doctest/doctest.h>

#include <filesystem>
#include <sstream>

#include "examples/cmd_inspect.h"
#include "tensor/files.h"
#include "tensor/random.h"
#include "tensor/torch_checkpoint.h"

using namespace addp;

namespace {

const std::string kGolden = "tests/golden/";

struct TemporaryFile {
  std::string path = (std::filesystem::temp_directory_path() / concat_text("addp_torch_", this)).string();
  ~TemporaryFile() { std::filesystem::remove(path); }
};

}  // namespace

TEST_CASE("torch checkpoint: zip and legacy format hold the same weights as safetensors") {
  const TensorFile expected = read_safetensors(kGolden + "vqgan_weights.safetensors");
  for (const char* name : {"vqgan_style_checkpoint.ckpt", "legacy_format.pth"}) {
    CAPTURE(name);
    const TensorFile file = read_weights(kGolden + name);
    CHECK(file.tensors.size() == expected.tensors.size());
    for (const auto& [key, x] : expected.tensors) {
      REQUIRE(file.tensors.contains(key));
      CHECK(same_bits(file.tensors.at(key), x));
    }
  }
}

TEST_CASE("torch checkpoint: nesting, numbers, element types, strides") {
  const std::string path = kGolden + "official_style_checkpoint.pth";
  REQUIRE(is_torch_checkpoint(path));
  const TensorFile file = read_torch_checkpoint(path);
  CHECK(file.metadata.at("epoch") == "1599");
  CHECK(file.tensors.at("blocks.0.attn.qkv.weight").shape() == Shape{96, 32});
  CHECK(file.tensors.contains("token_predictor.token_emb.position_ids"));

  const SafetensorsHeader header = read_torch_header(path);
  REQUIRE(header.tensors.size() == file.tensors.size());
  for (const TensorInfo& t : header.tensors) CHECK(file.tensors.at(t.name).shape() == t.shape);

  const auto extra = read_torch_checkpoint(path, "extra").tensors;
  using Floats = std::vector<float>;
  CHECK(extra.at("transposed").shape() == Shape{4, 3});
  CHECK(to_vector<float>(extra.at("transposed")) == Floats{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11});
  CHECK(to_vector<float>(extra.at("half")) == Floats{0, 1, 2, 3, 4, 5});
  CHECK(to_vector<float>(extra.at("bf16")) == Floats{0, 1, 2, 3, 4, 5});
  CHECK(to_vector<float>(extra.at("view")) == Floats{3, 4, 5, 6});
  CHECK(extra.at("scalar").shape() == Shape{});
  CHECK(to_vector<int64_t>(extra.at("scalar")) == std::vector<int64_t>{7});
  CHECK_THROWS_AS(read_torch_checkpoint(path, "nothing"), Error);

  std::ostringstream table;
  CHECK(run_inspect(path, table) == 0);
  CHECK(table.str().find("304 tensors") != std::string::npos);
}

TEST_CASE("torch checkpoint: damage is refused") {
  const std::string good = read_file(kGolden + "legacy_format.pth");
  const std::string zip = read_file(kGolden + "vqgan_style_checkpoint.ckpt");
  TemporaryFile file;
  const auto refused = [&](const std::string& bytes) {
    write_file_atomically(file.path, bytes);
    try {
      read_weights(file.path);
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::checkpoint);
      return true;
    }
    return false;
  };
  for (size_t keep : {0ul, 5ul, 8ul, 100ul, 5000ul, 20000ul, good.size() - 1}) CHECK(refused(good.substr(0, keep)));
  for (size_t keep : {10ul, 1000ul, zip.size() / 2, zip.size() - 1}) CHECK(refused(zip.substr(0, keep)));

  // Bytes of the pickle and of the zip directory changed at random: refused or read, never a crash.
  Rng rng(3);
  const size_t pickle = zip.find("data.pkl"), directory = zip.find("PK\1\2");
  for (int round = 0; round < 150; ++round) {
    std::string bytes = zip;
    for (int k = 0; k < 3; ++k) {
      const size_t place =
          round % 2 ? pickle + static_cast<size_t>(rng.below(8600))
                    : directory + static_cast<size_t>(rng.below(static_cast<int64_t>(zip.size() - directory)));
      bytes[place] = static_cast<char>(rng.below(256));
    }
    refused(bytes);
  }
}
