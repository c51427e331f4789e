// The judge (`train classifier`) and what it says of images (`evaluate`).
#include <cmath>
#include <set>

#include "data/image.h"
#include "data/subset.h"
#include "examples/batches.h"
#include "examples/evaluate.h"
#include "examples/frozen.h"
#include "nn/conv_classifier.h"
#include "nn/image_quality.h"
#include "nn/metrics.h"
#include "tests/compare.h"
#include "tests/drive.h"

namespace addp {
namespace {

constexpr int64_t kCount = 40;

// A classifier of drawn shapes, trained once.
const std::string& judge() {
  static const ScratchFolder folder;
  static const std::string run = [] {
    const Outcome outcome =
        run_well({"train", "classifier", "--preset", "tiny", "--data", "shapes", "--run", folder / "judge", "--steps",
                  kSanitized ? "4" : "60", "--batch", "32", "--log-every", kSanitized ? "1" : "10"});
    CHECK(contains(outcome.out, "test accuracy: "));
    CHECK(contains(outcome.out, "test images: 2000"));
    return folder / "judge";
  }();
  return run;
}

EvaluateOptions options(int64_t count = kCount) {
  EvaluateOptions o;
  o.features = judge();
  o.count = count;
  return o;
}

Tensor read_all(const Dataset& images, int64_t size) { return read_batch(images, 0, images.size(), size).images; }

// As picture files into a folder.
void write_all(const Tensor& images, const std::string& folder) {
  fs::create_directories(folder);
  const Shape one = {3, images.dim(2), images.dim(3)};
  for (int64_t i = 0; i < images.dim(0); ++i)
    write_png(concat_text(folder, "/", 1000 + i, ".png"), to_image(images.view(i * one.numel(), one)));
}

// A copy that a test may write into.
std::string copy_of(const std::string& run, const std::string& to) {
  fs::copy(run, to, fs::copy_options::recursive);
  return to;
}

}  // namespace

TEST_CASE("classifier: images of any size give features and logits; the features are what the head reads") {
  ConvClassifier model({.width = 8, .stages = 2}, 5, kDouble);
  initialize(model, Rng(1));
  Rng rng(2);
  for (const Shape& shape : {Shape{2, 3, 16, 16}, Shape{1, 3, 13, 7}, Shape{1, 3, 1, 1}}) {
    const auto found = model(Var(rng.uniform(shape, kDouble)));
    CHECK(found.features.shape() == Shape{shape[0], 32});
    CHECK(found.logits.shape() == Shape{shape[0], 5});
    CHECK(largest_difference(model.head(found.features).value(), found.logits.value()) == 0);
  }
  CHECK_THROWS_AS(ConvClassifier({.width = 12}, 5, kDouble), Error);
}

TEST_CASE("program: the classifier learns" * doctest::skip(kSanitized)) {
  const auto loss = curve(judge());  // means over ten steps
  CHECK(loss.back().second < loss.front().second - 0.1);
  for (const auto& [command, figures] : read_figures(judge())) {
    if (command == "test") CHECK(std::stod(figures.at(0).second) > 20);  // percent, of 8 classes
  }
}

TEST_CASE("program: the classifier ends the same for any threads, and when it is resumed") {
  const ScratchFolder folder;
  const int64_t steps = kSanitized ? 4 : 10;
  const Words extra = {"--save-every", "2", "--keep", "99"};
  const std::string whole = folder / "whole", run = folder / "run";
  run_well(train_tiny("classifier", whole, steps) + extra + Words{"--threads", "1"});
  CHECK(count_files(whole + "/samples") == 1);
  for (const std::string threads : {"2", "5"}) {
    const std::string other = folder / ("threads" + threads);
    run_well(train_tiny("classifier", other, steps) + Words{"--threads", threads});
    CHECK(bytes_of(newest(other)) == bytes_of(newest(whole)));
    CHECK(curve(other) == curve(whole));
  }
  run_well(train_tiny("classifier", run, steps) + extra);
  for (int64_t step : {steps, steps - 2}) fs::remove(concat_text(run, "/checkpoints/step_", step, "/DONE"));
  run_well(train_tiny("classifier", run, steps) + extra + Words{"--resume"});
  for (const char* file : {"weights.safetensors", "optimizer.safetensors", "ema.safetensors"})
    CHECK(bytes_of(newest(run, file)) == bytes_of(newest(whole, file)));
  CHECK(curve(run) == curve(whole));
  CHECK(bytes_of(run + "/samples/" + fs::directory_iterator(whole + "/samples")->path().filename().string()) ==
        bytes_of(fs::directory_iterator(whole + "/samples")->path().string()));
}

TEST_CASE("evaluate: the images to compare with and those of the floor are disjoint, and the same for every seed") {
  const ComparisonImages images = comparison_images("shapes", 16, kCount),
                         again = comparison_images("shapes", 16, kCount);
  const auto indices = [](const std::shared_ptr<const Dataset>& part) {
    return dynamic_cast<const Subset&>(*part).indices();
  };
  std::set<int64_t> all;
  for (const auto& part : {images.chosen, images.other}) {
    CHECK(part->size() == kCount);
    for (int64_t i : indices(part)) all.insert(i);
  }
  CHECK(all.size() == 2 * kCount);
  CHECK(indices(images.chosen) == indices(again.chosen));
  CHECK_THROWS_AS(comparison_images("shapes", 16, 1001), Error);
}

TEST_CASE("evaluate: a folder of the very images that are compared with gets FID 0, precision and recall 1") {
  const ScratchFolder folder;
  const ComparisonImages images = comparison_images("shapes", 16, kCount);
  write_all(read_all(*images.chosen, 16), folder / "same");
  Evaluator evaluator(options());
  const Evaluation same = evaluator.images(folder / "same");
  CHECK(same.n == kCount);
  CHECK(same.data == "shapes");
  CHECK(contains(same.network, "classifier " + judge() + ", trained on shapes"));
  CHECK(std::abs(same.value("fid")) < 1e-6);
  CHECK(same.value("precision") == 1);
  CHECK(same.value("recall") == 1);
  CHECK(std::isnan(same.value("psnr")));

  // The others get what is called the floor; black images are far off.
  write_all(read_all(*images.other, 16), folder / "other");
  const Evaluation other = evaluator.images(folder / "other");
  for (const std::string key : {"fid", "kid", "score", "precision", "recall"}) {
    INFO(key);
    CHECK(other.value(key) == other.value(key + "_floor"));
    CHECK(same.value(key + "_floor") == other.value(key));
  }
  CHECK(other.value("fid") > 0);
  write_all(zeros({kCount, 3, 16, 16}), folder / "black");
  const Evaluation black = evaluator.images(folder / "black");
  CHECK(black.value("fid") > 3 * other.value("fid"));
  CHECK(black.value("kid") > other.value("kid"));
  CHECK(black.value("recall") == 0);
  CHECK(black.value("score") == doctest::Approx(1));
}

TEST_CASE("evaluate: the floor is the distance of two sets of real images, by hand") {
  const ComparisonImages images = comparison_images("shapes", 16, kCount);
  const auto network = open_feature_network(judge(), Options());
  const ImageFeatures chosen = (*network)(read_all(*images.chosen, 16)),
                      other = (*network)(read_all(*images.other, 16));
  const Evaluation found = evaluate_run(tiny_pipeline().vqgan, options());
  CHECK(found.value("fid_floor") ==
        doctest::Approx(frechet_distance(FeatureMoments(other.features), FeatureMoments(chosen.features))));
}

TEST_CASE("evaluate: a run's PNG files get the very figures that the run gets") {
  const ScratchFolder folder;
  const std::string run = tiny_pipeline().predictor;
  run_well({"sample", "--run", run, "--count", std::to_string(kCount), "--out", folder / "drawn"});
  Evaluator evaluator(options());
  const Evaluation drawn = evaluator.run(run), files = evaluator.images(folder / "drawn/images");
  CHECK(drawn.subject == "MAGE");
  CHECK(drawn.draw_seconds > 0);
  CHECK(drawn.values == files.values);  // both pass the network in batches of one size
  CHECK(drawn.value("fid") > 0);
}

TEST_CASE("evaluate: a tokenizer's PSNR, SSIM and rFID are those of its reconstructions of the test images") {
  const ComparisonImages images = comparison_images("shapes", 16, kCount);
  const Tensor originals = read_all(*images.chosen, 16);
  const auto tokenizer = load_tokenizer(tiny_pipeline().vqgan, Options());
  const Tensor decoded = as_pictures(tokenizer->decode(tokenizer->encode(originals)));
  const auto network = open_feature_network(judge(), Options());
  const Evaluation found = evaluate_run(tiny_pipeline().vqgan, options());
  CHECK(found.subject == "tokenizer");
  CHECK(found.value("psnr") == doctest::Approx(mean_of(psnr(decoded, originals))));
  CHECK(found.value("ssim") == doctest::Approx(mean_of(ssim(decoded, originals))));
  CHECK(found.value("rfid") == doctest::Approx(frechet_distance(FeatureMoments((*network)(decoded).features),
                                                                FeatureMoments((*network)(originals).features))));
  CHECK(std::isnan(found.value("fid")));
}

TEST_CASE("evaluate: pictures are rounded as their files are") {
  const ScratchFolder folder;
  Rng rng(5);
  const Tensor images = affine(Var(rng.uniform({3, 3, 8, 8})), 1.4, -0.2).value();
  write_all(images, folder / "images");
  CHECK(same_bits(as_pictures(images), read_all(*open_images(folder / "images"), 8)));
  CHECK_THROWS_AS(as_pictures(full({1, 3, 2, 2}, NAN)), Error);
}

TEST_CASE(
    "program: evaluate prints every figure with N, network and floor, keeps them, and does not depend on threads") {
  const ScratchFolder folder;
  const std::string addp = copy_of(tiny_pipeline().addp, folder / "addp"),
                    vqgan = copy_of(tiny_pipeline().vqgan, folder / "vqgan");
  const auto judged = [&](const std::string& threads) {
    const Outcome outcome = run_well({"evaluate", "--run", addp, vqgan, "--features", judge(), "--count",
                                      std::to_string(kCount), "--threads", threads});
    return std::make_pair(outcome.out, read_evaluation(addp).values);
  };
  const auto [out, values] = judged("1");
  CHECK(judged("2").second == values);
  CHECK(judged("5").second == values);
  for (const char* name :
       {"FID:", "KID:", "Inception-style score:", "precision:", "recall:", "PSNR:", "SSIM:", "rFID:"})
    CHECK(contains(out, name));
  CHECK(contains(out, "N = 40, classifier " + judge() + ", trained on shapes]"));
  CHECK(contains(out, "(real images: "));

  const Evaluation kept = read_evaluation(addp), tokenizer = read_evaluation(vqgan);
  CHECK(kept.subject == "ADDP");
  CHECK(kept.n == kCount);
  CHECK(kept.values == evaluate_run(tiny_pipeline().addp, options()).values);
  CHECK(tokenizer.values.size() == 4);
  CHECK(contains(bytes_of(addp + "/results.json"), "\"FID\""));
  run_well({"report", addp});
  CHECK(contains(bytes_of(addp + "/report.html"), "feature network"));

  // A run that starts anew does not keep what was found out about the old one.
  run_well(train_tiny("vqgan", vqgan, 2) + Words{"--overwrite"});
  CHECK(!fs::exists(vqgan + "/evaluate.json"));
  CHECK(!contains(bytes_of(vqgan + "/results.json"), "evaluate"));
}

TEST_CASE("program: evaluate refuses what it cannot judge") {
  const ScratchFolder folder;
  const std::string run = tiny_pipeline().predictor;
  const Words with_judge = {"--features", judge()};
  check_fails(2, {"evaluate", "--run", run}, {"--features", "addp train classifier", "InceptionV3"});
  check_fails(2, Words{"evaluate"} + with_judge, {"--run", "--images"});
  check_fails(2, Words{"evaluate", "--run", run, "--images", folder.path.string()} + with_judge, {"--images", "--run"});
  check_fails(2, Words{"evaluate", "--run", judge()} + with_judge, {"stage classifier", "makes no images"});
  check_fails(2, {"evaluate", "--run", run, "--features", run}, {"stage predictor", "addp train classifier"});
  check_fails(2, {"evaluate", "--run", run, "--features", folder / "missing"}, {"missing", "no such run folder"});
  check_fails(4, {"evaluate", "--run", run, "--features", newest(judge())}, {"head.weight", "unexpected"});
  check_fails(4, Words{"evaluate", "--run", folder / "missing"} + with_judge, {"missing"});
  check_fails(2, Words{"evaluate", "--run", run, "--count", "3"} + with_judge, {"--count 3", "at least 4"});
  check_fails(2, Words{"evaluate", "--run", run, "--count", "1001"} + with_judge,
              {"1001", "2000 test", "at most 1000"});

  const std::string images = folder / "images";
  check_fails(3, Words{"evaluate", "--images", images} + with_judge, {"no such folder"});
  write_all(zeros({3, 3, 16, 16}), images);
  check_fails(3, Words{"evaluate", "--images", images} + with_judge, {"3 images", "at least 4"});
  write_all(zeros({5, 3, 16, 16}), images);
  check_fails(2, Words{"evaluate", "--images", images, "--count", "6"} + with_judge, {"--count 6", "holds 5"});
  check_fails(3, Words{"evaluate", "--images", images, "--data", images} + with_judge, {"test split"});
  CHECK_THROWS_AS(read_evaluation(folder.path.string()), Error);
}

}  // namespace addp
