// The program from images to pictures and a recognition score, and its smaller commands: what they print and leave.
#include <map>
#include <set>

#include "data/image.h"
#include "examples/event_file.h"
#include "examples/metrics.h"
#include "tensor/files.h"
#include "tests/drive.h"
#include "tests/pictures.h"

namespace addp {
namespace {

Image picture(const std::string& path) { return read_image(path); }

// Whether any two pixels differ.
bool has_content(const Image& image) { return std::set<uint8_t>(image.pixels.begin(), image.pixels.end()).size() > 8; }

std::string events_of(const std::string& run) {
  for (const auto& entry : fs::directory_iterator(run)) {
    if (contains(entry.path().filename().string(), "tfevents")) return entry.path().string();
  }
  return "";
}

void check_run_folder(const std::string& run, const std::string& stage, const std::set<std::string>& pictures) {
  INFO(run);
  for (const std::string name : {"config.json", "log.txt", "metrics.jsonl", "report.html", "results.json"})
    CHECK_MESSAGE(fs::file_size(run + "/" + name) > 0, name);
  CHECK(contains(bytes_of(run + "/config.json"), "\"run.stage\": \"" + stage + "\""));
  for (const std::string name : {"weights.safetensors", "optimizer.safetensors", "DONE"})
    CHECK(fs::exists(newest(run, name)));

  const auto loss = curve(run);
  REQUIRE(!loss.empty());
  CHECK(loss.front().first == 1);
  const std::vector<Event> events = read_events(events_of(run));
  size_t losses = 0;
  std::set<std::string> images;
  for (const Event& event : events) {
    losses += event.tag == "loss";
    if (!event.image_png.empty()) images.insert(event.tag);
  }
  CHECK(losses == loss.size());
  CHECK(images == pictures);
  for (const std::string& name : pictures) {
    char file[64];
    std::snprintf(file, sizeof file, "_%08d.png", static_cast<int>(loss.back().first));
    CHECK(has_content(picture(run + "/samples/" + name + file)));
  }
}

void check_self_contained(const std::string& html, size_t pictures) {
  for (const std::string foreign : {"<script", "src=\"http", "href=\"http", "url(", "<link", "@import"})
    CHECK_MESSAGE(!contains(html, foreign), foreign);
  size_t found = 0;
  for (size_t at = 0; (at = html.find("src=\"data:image/png;base64,", at)) != std::string::npos; ++at) ++found;
  CHECK(found >= pictures);
  CHECK(contains(html, "<svg"));
}

// A folder of one sub-folder a class in both splits, with noise for images.
void write_image_folder(const fs::path& root, int64_t train, int64_t test) {
  for (int64_t i = 0; i < train + test; ++i) {
    const fs::path folder = root / (i < train ? "train" : "test") / (i % 2 == 0 ? "even" : "odd");
    fs::create_directories(folder);
    write_png((folder / (std::to_string(i) + ".png")).string(), make_image(16, 16, 3, i));
  }
}

}  // namespace

TEST_CASE("program: three stages of training leave their run folders") {
  const TinyPipeline& tiny = tiny_pipeline();
  check_run_folder(tiny.vqgan, "vqgan", {"reconstructions"});
  check_run_folder(tiny.predictor, "predictor", {"predictor_samples"});
  check_run_folder(tiny.addp, "addp", {"addp_samples", "alternation", "noisy_images"});
  check_self_contained(bytes_of(tiny.vqgan + "/report.html"), 1);
  if (kSanitized) return;
  CHECK(curve(tiny.vqgan).back().second < 0.8 * curve(tiny.vqgan).front().second);
  CHECK(curve(tiny.predictor).back().second < curve(tiny.predictor).front().second);
  CHECK(curve(tiny.vqgan, "usage_%").back().second > 60);
}

TEST_CASE("program: sample, inpaint, reconstruct, probe, report") {
  const TinyPipeline& tiny = tiny_pipeline();
  const ScratchFolder out;
  const Outcome sampled = run_well({"sample", "--run", tiny.addp, "--count", "6", "--batch", "4"});
  CHECK(contains(sampled.out, tiny.addp + "/samples/samples.png\n"));
  const Image grid = picture(tiny.addp + "/samples/samples.png");
  CHECK(grid.width >= 6 * 16);
  CHECK(has_content(grid));
  CHECK(has_content(picture(tiny.addp + "/samples/samples_alternation.png")));
  CHECK(count_files(tiny.addp + "/samples/images") == 6);
  CHECK(picture(tiny.addp + "/samples/images/000005.png").width == 16);

  for (const std::string region : {"left", "top", "border", "center"}) {
    run_well({"sample", "--run", tiny.addp, "--count", "4", "--inpaint", region, "--out", out / region});
    CHECK(has_content(picture(out / region + "/inpainting.png")));
  }
  run_well({"sample", "--run", tiny.addp, "--count", "4", "--inpaint", "left"});
  CHECK(bytes_of(out / "left/inpainting.png") != bytes_of(out / "top/inpainting.png"));

  const Outcome reconstructed = run_well({"reconstruct", "--run", tiny.vqgan, "--count", "8"});
  CHECK(contains(reconstructed.out, "PSNR: "));
  CHECK(has_content(picture(tiny.vqgan + "/samples/reconstructions_test.png")));

  const Outcome probed = run_well({"probe", "--run", tiny.addp, "--train", "64", "--test", "32", "--steps", "20"});
  CHECK(contains(probed.out, "linear probe on ADDP features, mean over patch tokens:"));
  CHECK(contains(probed.out, "linear probe on raw pixels:"));
  CHECK(contains(probed.out, "(test accuracy; 64 training, 32 test images, 20 steps"));
  const Words quick = {"--train", "64", "--test", "32", "--steps", "20"};
  const Outcome random = run_well(Words{"probe", "--run", tiny.addp, "--random-weights"} + quick);
  CHECK(contains(random.out, "linear probe on ADDP features, random weights, mean over patch tokens:"));
  CHECK(contains(run_well(Words{"probe", "--run", tiny.predictor} + quick).out, "linear probe on MAGE features"));
  const Outcome drawn = run_well({"sample", "--run", tiny.predictor, "--count", "3", "--out", out / "mage"});
  CHECK(contains(drawn.out, "per image (MAGE"));
  CHECK(fs::exists(out / "mage/images/000002.png"));

  const Outcome reported = run_well({"report", tiny.folder.path.string()});
  CHECK(contains(reported.out, "report.html"));
  const std::string html = bytes_of(tiny.folder / "report.html");
  check_self_contained(html, 7);
  for (const std::string part : {"linear probe", "PSNR", "perplexity", "inpainting", "samples_alternation"})
    CHECK_MESSAGE(contains(html, part), part);
}

TEST_CASE("program: every option of the sampler changes the samples, and the same options repeat them") {
  const TinyPipeline& tiny = tiny_pipeline();
  const ScratchFolder out;
  const auto samples = [&](const std::string& name, const Words& options) {
    run_well(Words{"sample", "--run", tiny.addp, "--count", "4", "--out", out / name} + options);
    return bytes_of(out / name + "/samples.png");
  };
  const std::string usual = samples("usual", {"--threads", "1"});
  CHECK(samples("again", {"--threads", "5"}) == usual);
  std::set<std::string> different = {usual};
  const std::map<std::string, Words> options = {
      {"linear", {"--schedule", "linear"}}, {"seed", {"--seed", "2"}},   {"top_p", {"--top-p", "0.3"}},
      {"cold", {"--temperature", "0"}},     {"steps", {"--steps", "8"}}, {"soft", {"--soft-end", "--seed", "3"}}};
  for (const auto& [name, words] : options) {
    INFO(name);
    CHECK(different.insert(samples(name, words)).second);
  }
  CHECK(samples("cosine", {"--schedule", "cosine"}) == usual);  // the preset's own
  // Of a hot choice only the noise's order counts, which annealing leaves alone.
  CHECK(samples("annealed", {"--temperature", "0.1"}) !=
        samples("static", {"--temperature", "0.1", "--static-temperature"}));
  CHECK(samples("hard", {"--seed", "3"}) != samples("soft", {"--seed", "3", "--soft-end"}));

  // --top-p 1 draws from all codes, whatever the configuration says.
  const std::string narrow = out / "run";
  fs::copy(tiny.addp, narrow, fs::copy_options::recursive);
  std::string config = bytes_of(narrow + "/config.json");
  const std::string all = "\"sampler.top_p\": \"1\"";
  REQUIRE(contains(config, all));
  config.replace(config.find(all), all.size(), "\"sampler.top_p\": \"0.3\"");
  write_file_atomically(narrow + "/config.json", config);
  const auto narrow_samples = [&](const std::string& name, const Words& words) {
    run_well(Words{"sample", "--run", narrow, "--count", "4", "--out", out / name} + words);
    return bytes_of(out / name + "/samples.png");
  };
  CHECK(narrow_samples("narrow", {}) == bytes_of(out / "top_p" + "/samples.png"));
  CHECK(narrow_samples("wide", {"--top-p", "1"}) == usual);
}

TEST_CASE("program: a folder of images is checked and trained on") {
  const ScratchFolder data, run;
  write_image_folder(data.path, 16, 4);
  const Outcome good = run_well({"data", "check", data.path.string()});
  CHECK(contains(good.out, "16 readable images in 2 classes"));
  CHECK(contains(good.out, "no problem found"));
  run_well(
      {"train", "vqgan", "--preset", "tiny", "--steps", "2", "--run", run / "vqgan", "--data", data.path.string()});
  run_well({"reconstruct", "--run", run / "vqgan"});  // the run's data, of which there are four test images
}

TEST_CASE("program: configuration from preset, file, --set and flags, each over the one before") {
  const ScratchFolder run;
  write_file_atomically(run / "my.json", R"({"train_vqgan.steps": 7, "train_vqgan.batch": 4, "tokenizer.ndf": 16})");
  const Outcome outcome =
      run_well({"train", "vqgan", "--preset", "tiny", "--data", "shapes", "--run", run / "r", "--config",
                run / "my.json", "--set", "train_vqgan.batch=2", "--set", "tokenizer.gan_start=-1", "--steps", "1"});
  CHECK(contains(outcome.err, "1 steps of 2 images, learning rate"));
  const std::string config = bytes_of(run / "r/config.json");
  for (const std::string field : {R"("preset": "tiny")", R"("train_vqgan.steps": "1")", R"("train_vqgan.batch": "2")",
                                  R"("tokenizer.ndf": "16")", R"("tokenizer.gan_start": "-1")"})
    CHECK_MESSAGE(contains(config, field), field);
  // The stored configuration starts the same run again.
  run_well({"train", "vqgan", "--preset", "demo", "--data", "shapes", "--run", run / "again", "--config",
            run / "r/config.json"});
  CHECK(bytes_of(newest(run / "again")) == bytes_of(newest(run / "r")));
}

TEST_CASE("program: inspect, doctor, help") {
  const TinyPipeline& tiny = tiny_pipeline();
  const Outcome inspected = run_well({"inspect", tiny.addp});
  CHECK(contains(inspected.out, "token_emb.weight"));
  CHECK(contains(inspected.out, "preset = tiny"));
  CHECK(contains(inspected.out, "total: "));
  CHECK(contains(run_well({"inspect", newest(tiny.vqgan)}).out, "quantize.embedding.weight"));

  const Outcome doctor = run_well({"doctor", "--roofline"});
  for (const std::string line : {"build ", "devices ", "threads ", "memory ", "speed ", "data ", "disk "})
    CHECK_MESSAGE(contains(doctor.out, line), line);

  for (const std::string command :
       {"train", "sample", "reconstruct", "evaluate", "probe", "inspect", "gradcheck", "parity", "report"}) {
    CHECK(contains(run_well({"--help"}).out, command));
    CHECK(contains(run_well({command, "--help"}).out, "--help"));
  }
}

TEST_CASE("program: gradcheck finds every gradient right" * doctest::skip(kSanitized)) {
  const Outcome outcome = run_well({"gradcheck"});
  CHECK(!contains(outcome.out, "FAIL"));
  for (const std::string what : {"vqgan ", "patchgan ", "token predictor ", "addp ", "classifier ", "worst "})
    CHECK_MESSAGE(contains(outcome.out, what), what);
}

TEST_CASE("lessons: each runs to its end") {
  std::set<std::string> lessons;
  for (const auto& entry : fs::directory_iterator("examples")) {
    const std::string name = entry.path().stem().string();
    if (name[0] >= '0' && name[0] <= '9') lessons.insert(name);
  }
  CHECK(lessons.size() >= 6);
  for (const std::string& name : lessons) {
    if (kSanitized && name > "04") continue;  // those train
    const Outcome outcome = Process({built(name)}).wait();
    INFO(name, "\n", outcome.out, outcome.err);
    CHECK(outcome.code == 0);
    CHECK(!outcome.out.empty());
  }
}

}  // namespace addp
