// Training runs of the program: the same bits for any number of threads and after any interruption, signals, ablations.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "examples/run_folder.h"
#include "tensor/random.h"
#include "tensor/safetensors.h"
#include "tests/drive.h"

namespace addp {
namespace {

const std::vector<std::string> kStages = {"vqgan", "predictor", "addp", "finetune"};

void check_same_end(const std::string& run, const std::string& expected) {
  REQUIRE(fs::path(newest(run)).parent_path().filename() == fs::path(newest(expected)).parent_path().filename());
  for (const auto& entry : fs::directory_iterator(fs::path(newest(expected)).parent_path())) {
    const std::string file = entry.path().filename().string();
    CHECK_MESSAGE(bytes_of(newest(run, file)) == bytes_of(newest(expected, file)), file);
  }
}

// Starts a run that would go on for long, and waits for its first steps.
struct LongRun {
  explicit LongRun(const std::string& run) : run(run), process(command()) { REQUIRE(wait_for_step(2)); }
  Words command() const {
    return Words{built("addp")} + train_tiny("vqgan", run, 100000) + Words{"--save-every", "100000"};
  }
  bool wait_for_step(int64_t step) {
    return wait_until([&] {
             const auto loss = curve(run);
             return !process.running() || (!loss.empty() && loss.back().first >= step);
           }) &&
           process.running();
  }
  std::string run;
  Process process;
};

}  // namespace

TEST_CASE("program: ten steps give the same losses and weights with 1, 2 and 5 threads") {
  const ScratchFolder folder;
  for (const std::string& stage : kStages) {
    INFO(stage);
    const auto trained = [&](const std::string& threads) {
      const std::string run = folder / (stage + threads);
      run_well(train_tiny(stage, run, kSanitized ? 3 : 10) + Words{"--threads", threads});
      return run;
    };
    const std::string one = trained("1");
    CHECK(curve(one).size() == (kSanitized ? 3 : 10));
    for (const std::string threads : {"2", "5"}) {
      const std::string run = trained(threads);
      CHECK(curve(run) == curve(one));
      CHECK(curve(run, "grad_norm") == curve(one, "grad_norm"));
      check_same_end(run, one);
    }
  }
}

TEST_CASE("program: another seed, or fewer images, train differently") {
  const ScratchFolder folder;
  std::set<std::vector<std::pair<int64_t, double>>> curves;
  const std::map<std::string, Words> options = {
      {"usual", {}}, {"seed", {"--seed", "2"}}, {"limit", {"--limit", "8"}}, {"lr", {"--lr", "1e-3"}}};
  for (const auto& [name, words] : options) {
    run_well(train_tiny("vqgan", folder / name, 3) + words);
    curves.insert(curve(folder / name));
  }
  CHECK(curves.size() == options.size());
}

TEST_CASE("program: a run that is killed at random moments and resumed ends as one that never stopped") {
  const ScratchFolder folder;
  const int64_t steps = kSanitized ? 4 : 12;
  int kills = 0;
  for (const std::string& stage : kStages) {
    const Words extra = {"--save-every", "2", "--set", "train_" + stage + ".ema_decay=0.9"};
    const std::string whole = folder / (stage + "_whole");
    const auto begin = std::chrono::steady_clock::now();
    run_well(train_tiny(stage, whole, steps) + extra);
    const std::chrono::duration<double> duration = std::chrono::steady_clock::now() - begin;

    for (int seed = 1; seed <= (kSanitized ? 1 : 4); ++seed) {
      INFO(stage, ", moments of seed ", seed);
      const std::string run = folder / (stage + std::to_string(seed));
      const Words command = train_tiny(stage, run, steps) + extra + Words{"--resume"};
      Rng moments = Rng(static_cast<uint64_t>(seed)).fork(stage);
      for (int kill = 0; kill < 3; ++kill) {
        Process process(Words{built("addp")} + command);
        std::this_thread::sleep_for(0.8 * moments.uniform() * duration);
        process.send(SIGKILL);
        kills += process.wait().code == 128 + SIGKILL;
      }
      run_well(command);
      check_same_end(run, whole);
      CHECK(curve(run) == curve(whole));
      CHECK(fs::exists(run + "/report.html"));
    }
  }
  CHECK(kills > 2);
}

TEST_CASE("program: a run whose process dies while saving resumes from the checkpoint before") {
  const ScratchFolder folder;
  const Words save = {"--save-every", "2"};
  run_well(train_tiny("predictor", folder / "whole", 6) + save);
  run_well(train_tiny("predictor", folder / "run", 6) + save);
  fs::remove(folder / "run/checkpoints/step_6/DONE");
  write_file_atomically(folder / "run/checkpoints/step_6/weights.safetensors", "half a fi");
  run_well(train_tiny("predictor", folder / "run", 6) + save + Words{"--resume"});
  check_same_end(folder / "run", folder / "whole");
  CHECK(curve(folder / "run") == curve(folder / "whole"));
  // Nothing is left to do: the weights stay as they are.
  run_well(train_tiny("predictor", folder / "run", 6) + save + Words{"--resume"});
  check_same_end(folder / "run", folder / "whole");
}

static void without_recompute_mlp(const std::string& path) {
  auto json = nlohmann::json::parse(bytes_of(path));
  CHECK(json.erase("predictor.recompute_mlp") + json.erase("model.recompute_mlp") == 2);
  write_file_atomically(path, json.dump());
}

TEST_CASE("program: recomputed MLPs train the same weights, and a resumed run may choose anew") {
  const ScratchFolder folder;
  for (const std::string stage : {"predictor", "addp"}) {
    const std::string network = stage == "addp" ? "model" : stage, whole = folder / (stage + "_whole");
    const std::string run = folder / stage;
    const auto train = [&](const std::string& to, const char* recompute) {
      return train_tiny(stage, to, 4) + Words{"--save-every", "2", "--set", network + ".recompute_mlp=" + recompute};
    };
    run_well(train(whole, "false"));
    run_well(train(run, "true"));
    check_same_end(run, whole);
    for (const bool is_old : {false, true}) {  // is_old: the run's configuration has no such field
      INFO(stage, ", is_old: ", is_old);
      if (is_old) without_recompute_mlp(run + "/config.json");
      fs::remove(run + "/checkpoints/step_4/DONE");
      run_well(train(run, is_old ? "true" : "false") + Words{"--resume"});
      check_same_end(run, whole);
      CHECK(curve(run) == curve(whole));
    }
  }
}

TEST_CASE("program: Ctrl-C saves, says how to go on, and exits 130") {
  const ScratchFolder folder;
  LongRun first(folder / "run");
  first.process.send(SIGINT);
  const Outcome stopped = first.process.wait();
  CHECK(stopped.code == 130);
  const std::vector<int64_t> saved = checkpoint_steps(first.run);
  REQUIRE(saved.size() == 1);
  CHECK(saved.back() == curve(first.run).back().first);

  // The printed command goes on after the saved step.
  const size_t at = stopped.err.find("To go on:\n  ");
  REQUIRE(at != std::string::npos);
  const std::string command = stopped.err.substr(at + 12, stopped.err.find('\n', at + 12) - at - 12);
  CHECK(contains(command, " --resume"));
  Process second({"/bin/sh", "-c", "exec " + command});
  const bool went_on =
      wait_until([&] { return !second.running() || curve(first.run).back().first > saved.back() + 1; });
  CHECK(went_on);
  second.send(SIGINT);
  CHECK(second.wait().code == 130);
  const auto loss = curve(first.run);
  for (size_t i = 0; i < loss.size(); ++i) REQUIRE(loss[i].first == static_cast<int64_t>(i) + 1);
  CHECK(checkpoint_steps(first.run).back() == loss.back().first);
}

TEST_CASE("program: SIGUSR1 saves and goes on, SIGTERM saves and exits 143; meanwhile the folder is locked") {
  const ScratchFolder folder;
  LongRun run(folder / "run");
  check_fails(2, train_tiny("vqgan", run.run, 100000) + Words{"--resume"}, {run.run, "another process"});
  run.process.send(SIGUSR1);
  CHECK(wait_until([&] { return checkpoint_steps(run.run).size() == 1; }));
  const int64_t saved = checkpoint_steps(run.run).back();
  CHECK(run.wait_for_step(saved + 2));
  run.process.send(SIGTERM);
  CHECK(run.process.wait().code == 143);
  CHECK(checkpoint_steps(run.run).back() > saved);
}

TEST_CASE("program: every ablation switch trains and changes the loss") {
  const ScratchFolder folder;
  const std::map<std::string, Words> switches = {
      {"addp",
       {"objective.predicted_targets=false", "objective.reliable_tokens=false", "objective.soft_unreliable=false",
        "objective.label_smoothing=0", "masking.mean=0.9", "masking.max_jump=40", "model.dropout=0"}},
      {"predictor", {"objective.label_smoothing=0", "predictor.decoder_depth=2", "masking.deviation=0.05"}},
      {"vqgan",
       {"tokenizer.ema_codebook=false", "tokenizer.gan_start=-1", "tokenizer.gan_start=2",
        "tokenizer.codebook_weight=2", "vqgan.ch_mult=1,1,2", "vqgan.strided_downsampling=true",
        "vqgan.mid_attention=true", "vqgan.quant_conv=true", "train_vqgan.flip=false", "train_vqgan.min_crop=0.3"}}};
  for (const auto& [stage, assignments] : switches) {
    std::map<std::vector<std::pair<int64_t, double>>, std::string> curves;
    run_well(train_tiny(stage, folder / stage, 3));
    curves[curve(folder / stage)] = "the preset";
    for (const std::string& assignment : assignments) {
      if (kSanitized && stage == "vqgan" && curves.size() > 3) break;
      INFO(stage, " ", assignment);
      const std::string run = folder / (stage + "-" + assignment);
      run_well(train_tiny(stage, run, 3) + Words{"--set", assignment});
      const auto loss = curve(run);
      CHECK(loss.size() == 3);
      CHECK(std::all_of(loss.begin(), loss.end(), [](const auto& point) { return std::isfinite(point.second); }));
      CHECK_MESSAGE(curves.count(loss) == 0, "the same loss as ", curves[loss]);
      curves[loss] = assignment;
    }
  }
}

TEST_CASE("program: the encoder's learning rate can be scaled alone") {
  const ScratchFolder folder;
  const auto weights_after = [&](const std::string& scale, int64_t steps) {
    const std::string run = folder / (scale + "-" + std::to_string(steps));
    run_well(train_tiny("addp", run, steps) + Words{"--set", "encoder_lr_scale=" + scale});
    return read_safetensors(newest(run, "weights.safetensors")).tensors;
  };
  const auto start = weights_after("0", 1), frozen = weights_after("0", 4), free = weights_after("1", 4);
  for (const std::string name : {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight",
                                 "blocks.1.mlp.fc2.bias", "norm.weight"}) {
    INFO(name);
    CHECK(same_bits(start.at(name), frozen.at(name)));
    CHECK(!same_bits(start.at(name), free.at(name)));
  }
  for (const std::string name : {"token_emb.weight", "decoder_blocks.0.attn.qkv.weight", "mlm_layer.fc.weight"}) {
    INFO(name);
    CHECK(!same_bits(start.at(name), frozen.at(name)));
  }
}

}  // namespace addp
