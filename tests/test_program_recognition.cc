// Recognition stages of the program: what they print and keep, the same bits for any number of threads and after an
// interruption, and what they refuse.
#include "examples/results.h"
#include "examples/run_folder.h"
#include "tests/drive.h"

namespace addp {
namespace {

Words train_on(const std::string& stage, const std::string& encoder, const std::string& run) {
  return {"train",   stage, "--preset",     "tiny", "--encoder",   encoder, "--run",          run,
          "--steps", "4",   "--save-every", "2",    "--log-every", "1",     "--sample-every", "1000000"};
}

std::string figure(const std::string& run, const std::string& name) {
  for (const auto& [command, figures] : read_figures(run)) {
    for (const auto& [key, value] : figures) {
      if (key == name) return value;
    }
  }
  return "";
}

}  // namespace

TEST_CASE("program: segment and detect train, judge themselves, and resume with the same bits") {
  const ScratchFolder folder;
  for (const auto& [stage, name] :
       {std::pair<std::string, std::string>{"segment", "test mIoU"}, {"detect", "test AP"}}) {
    INFO(stage);
    const std::string whole = folder / stage, run = folder / (stage + "_again");
    const Outcome outcome = run_well(train_on(stage, tiny_pipeline().addp, whole));
    CHECK(contains(outcome.out, name + ": "));
    CHECK(figure(whole, name) != "");
    CHECK(contains(bytes_of(whole + "/config.json"), "\"run.data\": \"scenes\""));
    CHECK(count_files(whole + "/samples") == 1);

    run_well(train_on(stage, tiny_pipeline().addp, run) + Words{"--threads", "5"});
    CHECK(bytes_of(newest(run)) == bytes_of(newest(whole)));
    fs::remove(run + "/checkpoints/step_4/DONE");
    run_well(train_on(stage, tiny_pipeline().addp, run) + Words{"--resume"});
    CHECK(bytes_of(newest(run)) == bytes_of(newest(whole)));
    CHECK(curve(run) == curve(whole));
    CHECK(figure(run, name) == figure(whole, name));
  }
}

TEST_CASE("program: fine-tuning from an encoder and from random weights differ; labels are counted; so does k-NN") {
  const ScratchFolder folder;
  const Words shapes = {"--data", "shapes"};
  run_well(train_on("finetune", tiny_pipeline().addp, folder / "tuned") + shapes);
  run_well(train_on("finetune", "none", folder / "scratch") + shapes);
  run_well(train_on("finetune", "none", folder / "few") + shapes + Words{"--labels", "1"});
  CHECK(curve(folder / "tuned") != curve(folder / "scratch"));
  CHECK(curve(folder / "few") != curve(folder / "scratch"));
  CHECK(contains(figure(folder / "tuned", "test accuracy"), "%"));
  check_fails(3, train_on("finetune", "none", folder / "fewer") + shapes + Words{"--labels", "0.001", "--batch", "9"},
              {"has 8 images"});

  const Outcome knn = run_well({"knn", tiny_pipeline().addp, "--train", "200", "--test", "50", "--k", "5"});
  CHECK(contains(knn.out, "k-NN on raw pixels"));
  CHECK(figure(tiny_pipeline().addp, "k-NN on raw pixels") != "");
  check_fails(2, {"knn", tiny_pipeline().addp, "--train", "20", "--k", "21"}, {"knn", "21", "20"});
}

TEST_CASE("program: recognition stages refuse what they cannot use, and leave no folder behind") {
  const ScratchFolder folder;
  const std::string run = folder / "run";
  check_fails(2, {"train", "finetune", "--run", run}, {"--encoder", "none"});
  check_fails(2, {"train", "vqgan", "--run", run, "--encoder", "none"}, {"vqgan", "--encoder"});
  check_fails(2, train_on("segment", folder / "missing", run), {"missing"});
  check_fails(2, train_on("segment", tiny_pipeline().vqgan, run), {"vqgan", "no encoder"});
  check_fails(2, train_on("segment", "none", run) + Words{"--data", "shapes"}, {"shapes", "masks", "scenes"});
  check_fails(2, train_on("detect", "none", run) + Words{"--data", "shapes"}, {"shapes", "boxes", "scenes"});
  check_fails(2, train_on("finetune", "none", run) + Words{"--labels", "0"}, {"finetune.labels"});
  check_fails(2, train_on("detect", "none", run) + Words{"--set", "dense.image_size=30"}, {"dense.image_size"});
  CHECK(!fs::exists(run));
}

}  // namespace addp
