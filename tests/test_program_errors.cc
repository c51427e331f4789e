// The program given bad input: the right exit code, a message with what, where and what next, and nothing lost.
#include <cmath>

#include "data/image.h"
#include "examples/run_folder.h"
#include "tensor/safetensors.h"
#include "tests/drive.h"
#include "tests/pictures.h"

namespace addp {
namespace {

// The tiny tokenizer's run with something done to its newest weights file.
std::string damaged_run(const ScratchFolder& folder, const std::string& name,
                        const std::function<std::string(const std::string&)>& damage) {
  const std::string run = folder / name;
  fs::copy(tiny_pipeline().vqgan, run, fs::copy_options::recursive);
  write_file_atomically(newest(run), damage(bytes_of(newest(run))));
  return run;
}

// A safetensors file that announces `length` bytes of header and has this one.
std::string safetensors_bytes(uint64_t length, const std::string& header, const std::string& data = "") {
  std::string bytes;
  for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(length >> shift);
  return bytes + header + data;
}

std::string with_header(const std::string& header, const std::string& data = "") {
  return safetensors_bytes(header.size(), header, data);
}

bool all_finite(const std::string& weights) {
  for (const auto& [name, tensor] : read_safetensors(weights).tensors) {
    for (float value : to_vector<float>(tensor)) {
      if (!std::isfinite(value)) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("program: mistakes on the command line") {
  const ScratchFolder folder;
  const std::string run = folder / "run";
  check_fails(2, {"train", "vqgan", "--run", run, "--stesp", "3"},
              {"unknown option --stesp (did you mean --steps?)", "addp train --help"});
  check_fails(2, {"smaple"}, {"unknown command smaple (did you mean sample?)"});
  check_fails(2, {"train", "vqgna", "--run", run}, {"vqgna", "vqgan"});
  check_fails(2, {}, {"--help"});
  check_fails(2, {"train", "vqgan"}, {"--run"});
  check_fails(2, {"train", "vqgan", "--run", run, "--preset", "huge"}, {"huge", "tiny"});
  check_fails(2, {"train", "vqgan", "--run", run, "--steps", "many"}, {"train_vqgan.steps", "whole number", "many"});
  check_fails(2, {"train", "vqgan", "--run", run, "--set", "objective.predicted_target=false"},
              {"objective.predicted_target ", "did you mean objective.predicted_targets?"});
  check_fails(2, {"train", "vqgan", "--run", run, "--set", "patch_size=5"}, {"image_size", "patch_size 5"});
  check_fails(2, {"train", "vqgan", "--run", run, "--set", "nothing"}, {"name=value", "nothing"});
  check_fails(2, {"train", "vqgan", "--run", run, "--config", folder / "none.json"}, {"none.json"});
  write_file_atomically(folder / "bad.json", "{ not json");
  check_fails(2, {"train", "vqgan", "--run", run, "--config", folder / "bad.json"}, {"bad.json", "JSON"});
  check_fails(2, {"train", "vqgan", "--run", run, "--resume", "--overwrite"}, {"--resume", "--overwrite"});
  check_fails(5, {"train", "vqgan", "--run", run, "--data", "shapes", "--device", "cuda"}, {"cuda", "--device cpu"});
  CHECK(!fs::exists(run));  // none of these made a run folder
}

TEST_CASE("program: stages that are missing or of another kind") {
  const TinyPipeline& tiny = tiny_pipeline();
  const ScratchFolder folder;
  const Words predictor = {"train", "predictor", "--preset", "tiny", "--data", "shapes", "--run", folder / "run"};
  check_fails(2, predictor, {"--tokenizer", "addp train vqgan"});
  check_fails(2, predictor + Words{"--tokenizer", tiny.predictor}, {tiny.predictor, "predictor", "expected vqgan"});
  check_fails(2, predictor + Words{"--tokenizer", folder / "none"}, {"none", "addp train vqgan"});
  check_fails(
      2, {"train", "addp", "--preset", "tiny", "--data", "shapes", "--run", folder / "run", "--tokenizer", tiny.vqgan},
      {"--predictor"});
  check_fails(2, {"sample", "--run", tiny.vqgan}, {tiny.vqgan, "expected addp"});
  check_fails(2, {"reconstruct", "--run", tiny.addp}, {tiny.addp, "expected vqgan"});
  check_fails(2, {"probe", "--run", tiny.vqgan}, {tiny.vqgan, "expected addp"});
  fs::create_directories(folder / "empty");
  check_fails(4, {"sample", "--run", folder / "empty"}, {"empty/config.json", "addp train"});

  CHECK(!fs::exists(folder / "run"));  // after the mistake is corrected the same command works

  // A tokenizer, or a predictor, of other sizes.
  const std::string other = folder / "other", other_predictor = folder / "other_predictor";
  const Words sizes = {
      "--preset", "tiny",          "--data", "shapes",      "--steps", "1",         "--set", "vqgan.codebook_size=16",
      "--set",    "vocabulary=18", "--set",  "class_id=16", "--set",   "mask_id=17"};
  run_well(Words{"train", "vqgan", "--run", other} + sizes);
  run_well(Words{"train", "predictor", "--run", other_predictor, "--tokenizer", other} + sizes);
  check_fails(4, predictor + Words{"--tokenizer", other}, {other, "16 codes", "24", "another preset"});
  check_fails(4,
              {"train", "addp", "--preset", "tiny", "--data", "shapes", "--run", folder / "run2", "--tokenizer",
               tiny.vqgan, "--predictor", other_predictor},
              {other_predictor, "another preset"});
  check_fails(4, {"sample", "--run", tiny.addp, "--tokenizer", other}, {other, "another preset"});
}

TEST_CASE("program: data that is missing, empty or broken") {
  const ScratchFolder folder;
  const auto train = [&](const std::string& data) {
    return Words{"train", "vqgan", "--preset", "tiny", "--steps", "3", "--run", folder / "run", "--data", data};
  };
  check_fails(3, train(folder / "none"), {folder / "none", "shapes"});
  fs::create_directories(folder / "empty");
  check_fails(3, train(folder / "empty"), {folder / "empty"});
  CHECK(run_addp({"data", "check", folder / "empty"}).code == 3);

  for (int i = 0; i < 12; ++i) {
    for (const std::string split : {"train", "test"}) {
      fs::create_directories(folder / "pictures" + "/" + split + "/a");
      write_png(folder / "pictures/" + split + "/a/" + std::to_string(i) + ".png", make_image(16, 16, 3, i));
    }
  }
  const std::string torn = folder / "pictures/train/a/3.png";
  write_file_atomically(torn, bytes_of(torn).substr(0, 300));
  check_fails(3, train(folder / "pictures"), {torn, "data check"});
  const Outcome checked = run_addp({"data", "check", folder / "pictures"});
  CHECK(checked.code == 3);
  CHECK(contains(checked.out, "PROBLEM " + torn));
  CHECK(contains(checked.out, "11 readable images"));
}

TEST_CASE("program: weights that are truncated, hostile or misshapen") {
  const ScratchFolder folder;
  const auto refused = [&](const std::string& name, const std::function<std::string(const std::string&)>& damage,
                           const std::vector<std::string>& parts) {
    INFO(name);
    const std::string run = damaged_run(folder, name, damage);
    check_fails(4, {"reconstruct", "--run", run}, Words{newest(run)} + parts);
  };
  refused("truncated", [](const std::string& bytes) { return bytes.substr(0, bytes.size() / 2); }, {});
  refused("empty", [](const std::string&) { return std::string(); }, {});
  refused("noise", [](const std::string&) { return std::string(1000, '\xee'); }, {});
  refused("long header", [](const std::string&) { return safetensors_bytes(uint64_t{1} << 62, "{}"); }, {"header"});
  refused("huge shape",
          [](const std::string&) {
            return with_header(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}})",
                               std::string(16, '\0'));
          },
          {"\"a\"", "overflows"});
  refused("beyond the end",
          [](const std::string&) {
            return with_header(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", "123");
          },
          {"truncated"});
  refused("missing names", [](const std::string&) { return with_header("{}"); }, {"encoder.conv_in.weight", "missing"});
  const std::string weights = newest(tiny_pipeline().addp);
  refused("another model", [&](const std::string&) { return bytes_of(weights); }, {"missing", "unexpected"});

  write_file_atomically(folder / "hostile.safetensors", safetensors_bytes(uint64_t{1} << 40, "{}"));
  check_fails(4, {"inspect", folder / "hostile.safetensors"}, {"hostile.safetensors"});
  check_fails(4, {"inspect", folder / "none.safetensors"}, {"none.safetensors", "no such"});
  check_fails(4,
              {"train", "vqgan", "--preset", "tiny", "--data", "shapes", "--run", folder / "run", "--lpips", weights},
              {weights, "missing"});
}

TEST_CASE("program: run folders that are in use, foreign, or of another configuration") {
  const ScratchFolder folder;
  const std::string run = folder / "run";
  run_well(train_tiny("vqgan", run, 2));
  const std::string before = bytes_of(newest(run));
  check_fails(2, train_tiny("vqgan", run, 2), {run, "--resume", "--overwrite"});
  check_fails(4, train_tiny("vqgan", run, 3) + Words{"--resume"}, {run, "another configuration", "train_vqgan.steps"});
  check_fails(4, train_tiny("vqgan", run, 2) + Words{"--resume", "--seed", "9"}, {run, "another configuration"});
  check_fails(4, train_tiny("predictor", run, 2) + Words{"--resume"}, {run, "vqgan"});
  CHECK(bytes_of(newest(run)) == before);
  CHECK(curve(run).size() == 2);

  fs::create_directories(folder / "mine");
  write_file_atomically(folder / "mine/thesis.txt", "all of it");
  for (const std::string flag : {"--resume", "--overwrite"})
    check_fails(2, train_tiny("vqgan", folder / "mine", 2) + Words{flag}, {"mine", "something other than a run"});
  CHECK(bytes_of(folder / "mine/thesis.txt") == "all of it");
}

TEST_CASE("program: a full disk while saving keeps the checkpoint before") {
  const ScratchFolder folder;
  const std::string run = folder / "run";
  const Words train = train_tiny("vqgan", run, 6) + Words{"--save-every", "2"};
  run_well(train_tiny("vqgan", folder / "whole", 6) + Words{"--save-every", "2"});
  const auto size = [&](const std::string& file) {
    return static_cast<int64_t>(fs::file_size(newest(folder / "whole", file)));
  };
  REQUIRE(size("optimizer.safetensors") > size("weights.safetensors") + 10000);

  // The weights fit, the optimizer's state does not.
  check_fails(1, train, {"optimizer.safetensors", "cannot be written"}, size("weights.safetensors") + 10000);
  CHECK(checkpoint_steps(run).empty());
  CHECK(count_files(run + "/checkpoints") == 0);

  // The same after a first good checkpoint, then with room again.
  fs::remove_all(run);
  run_well(train_tiny("vqgan", run, 6) + Words{"--save-every", "2", "--keep", "9"});
  for (const std::string step : {"4", "6"}) fs::remove_all(run + "/checkpoints/step_" + step);
  check_fails(1, train + Words{"--resume"}, {"optimizer.safetensors", "cannot be written"},
              size("weights.safetensors") + 10000);
  CHECK(checkpoint_steps(run) == std::vector<int64_t>{2});
  run_well(train + Words{"--resume"});
  CHECK(bytes_of(newest(run)) == bytes_of(newest(folder / "whole")));
}

TEST_CASE("program: a loss that is not finite stops the run and keeps the last good checkpoint") {
  const ScratchFolder folder;
  for (const std::string stage : {"vqgan", "predictor"}) {
    const std::string run = folder / stage;
    check_fails(6, train_tiny(stage, run, 20) + Words{"--lr", "1e30", "--save-every", "1", "--keep", "50"},
                {"step ", "--lr", "data check", "is kept"});
    const std::vector<int64_t> saved = checkpoint_steps(run);
    REQUIRE(!saved.empty());
    for (int64_t step : saved) CHECK(all_finite(checkpoint_folder(run, step) + "/weights.safetensors"));
  }
}

}  // namespace addp
