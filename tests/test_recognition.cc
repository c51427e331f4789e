// Recognition on a backbone: classifier against nn/vit.h, positions against PyTorch, neighbours against scikit-learn,
// and the data side of fine-tuning.
#include <algorithm>
#include <set>

#include "addp/classifier.h"
#include "addp/knn.h"
#include "addp/recognition.h"
#include "data/mixing.h"
#include "data/subset.h"
#include "nn/init.h"
#include "nn/state_dict.h"
#include "tensor/safetensors.h"
#include "tests/compare.h"
#include "tests/tiny_models.h"

namespace addp {
namespace {

constexpr const char* kExpected = "tests/golden/recognition_expected.safetensors";

// A data set of blank images whose labels are given.
class Labels : public Dataset {
 public:
  explicit Labels(std::vector<int64_t> labels) : labels_(std::move(labels)) {
    class_names = {"a", "b", "c"};
    name = "labels";
  }
  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  Sample read(int64_t index) const override { return {{1, 1, 1, {0}}, labels_.at(index)}; }
  std::string where(int64_t) const override { return name; }

 private:
  std::vector<int64_t> labels_;
};

Batch random_batch(int64_t B, int64_t size) {
  Rng rng(3);
  Batch batch{rng.uniform({B, 3, size, size}), empty({B}, {DType::i64, Device::cpu})};
  for (int64_t i = 0; i < B; ++i) batch.labels.ptr<int64_t>()[i] = i % 5;
  return batch;
}

}  // namespace

TEST_CASE("recognition: positions resized as PyTorch's bicubic interpolation") {
  const StateDict golden = read_safetensors(kExpected).tensors;
  for (const int64_t to : {8, 7, 3}) {
    INFO(to);
    const Tensor resized = resize_positions(golden.at("positions"), to);
    CHECK(largest_difference(resized, golden.at("positions." + std::to_string(to))) < 1e-12);
  }
  CHECK(same_bits(resize_positions(golden.at("positions"), 4), golden.at("positions")));
  CHECK_THROWS_AS(resize_positions(zeros({1, 18, 3}), 4), Error);
}

TEST_CASE("recognition: k nearest neighbours as scikit-learn's") {
  const auto file = read_safetensors(kExpected);
  const auto at = [&](const std::string& name) { return file.tensors.at("knn." + name); };
  const int64_t k = std::stoll(file.metadata.at("k"));
  for (const auto& [name, temperature] :
       {std::pair<std::string, double>{"vote", 0},
        std::pair<std::string, double>{"weighted", std::stod(file.metadata.at("temperature"))}}) {
    INFO(name);
    const KnnConfig config = {k, temperature};
    const Tensor votes = knn_votes(at("x"), at("y"), at("x_test"), 5, config);
    CHECK(largest_difference(votes, at(name + ".share")) < 1e-10);
    // Predictions as labels: all right.
    CHECK(knn_accuracy(at("x"), at("y"), at("x_test"), at(name), 5, config) == 1);
  }
  CHECK_THROWS_AS(knn_votes(at("x"), at("y"), at("x_test"), 5, {.k = 301}), Error);
  CHECK_THROWS_AS(knn_votes(at("x"), at("y"), at("x_test"), 4, {.k = k}), Error);
}

TEST_CASE("recognition: without tokenizer_norm the classifier is the plain ViT, values, names and gradients") {
  const Config config = preset("tiny");
  PixelEncoder encoder(config, kDouble);
  init_transformer(encoder, Rng(4));
  auto backbone = std::make_unique<EncoderBackbone>(config, BackboneOptions{.tokenizer_norm = false}, Rng(5), kDouble);
  backbone->start_from(encoder);
  Classifier classifier(std::move(backbone), 6, Rng(6), kDouble);
  VisionTransformer vit(classifier_config(config, 6), kDouble);
  load_state_dict(vit, state_dict(classifier));  // the same names

  const Var image(Rng(7).uniform({3, 3, 16, 16}, kDouble));
  const Tensor target = from_vector<int64_t>({1, 5, 0}, {3});
  const Var a = classifier(image), b = vit(normalize_pixels(image));
  CHECK(largest_difference(a.value(), b.value()) < 1e-12);
  backward(cross_entropy(a, target, {}, 0.1));
  backward(cross_entropy(b, target, {}, 0.1));
  const auto mine = parameters(classifier), theirs = parameters(vit);
  REQUIRE(mine.size() == theirs.size());
  for (size_t i = 0; i < mine.size(); ++i) {
    INFO(mine[i].name);
    CHECK(mine[i].name == theirs[i].name);
    CHECK(largest_difference(mine[i].var.grad(), theirs[i].var.grad()) < 1e-12);
  }
}

TEST_CASE("recognition: a backbone gives the encoder's own tokens, also after its positions were resized twice") {
  const Config config = preset("tiny");
  PixelEncoder encoder(config, kDouble);
  init_transformer(encoder, Rng(4));
  EncoderBackbone same(config, {}, Rng(5), kDouble);
  same.start_from(encoder);
  const Var image(Rng(7).uniform({2, 3, 16, 16}, kDouble));
  const Tensor own = recognition_features(encoder, image.value(), true);
  CHECK(largest_difference(average_cells(same.patch_tokens(image, {}).value(), 1), own) < 1e-12);

  EncoderBackbone larger(config, {.image_size = 40}, Rng(5), kDouble);
  larger.start_from(encoder);
  CHECK(larger.grid == 10);
  CHECK(larger.patch_tokens(Var(Rng(8).uniform({2, 3, 40, 40}, kDouble)), {}).shape() == Shape{2, 100, 32});
  CHECK_THROWS_AS(larger.patch_tokens(image, {}), Error);
  CHECK_THROWS_AS(EncoderBackbone(config, {.image_size = 42}, Rng(5), kDouble), Error);
  Config wider = config;
  wider.model.width = 64;
  EncoderBackbone other(wider, {}, Rng(5), kDouble);
  CHECK_THROWS_AS(other.start_from(encoder), Error);
}

TEST_CASE("recognition: drop path acts in training only, more in later blocks") {
  const Config config = preset("tiny");
  EncoderBackbone backbone(config, {.drop_path = 0.9}, Rng(5), kDouble);
  const Var image(Rng(7).uniform({4, 3, 16, 16}, kDouble));
  Rng rng(1);
  const Tensor plain = backbone.patch_tokens(image, {}).value();
  CHECK(same_bits(plain, backbone.patch_tokens(image, {}).value()));
  CHECK(largest_difference(plain, backbone.patch_tokens(image, {true, &rng}).value()) > 1e-3);
}

TEST_CASE("recognition: Beta draws have Beta's mean and variance") {
  Rng rng(11);
  for (const auto& [a, b] : {std::pair{0.8, 0.8}, {1.0, 1.0}, {0.2, 0.2}, {3.0, 1.5}}) {
    INFO(a, " ", b);
    constexpr int kDraws = 20000;
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double x = draw_beta(a, b, rng);
      REQUIRE((x >= 0 && x <= 1));
      sum += x, squares += x * x;
    }
    const double mean = sum / kDraws, variance = squares / kDraws - mean * mean;
    CHECK(mean == doctest::Approx(a / (a + b)).epsilon(0.02));
    CHECK(variance == doctest::Approx(a * b / ((a + b) * (a + b) * (a + b + 1))).epsilon(0.05));
  }
}

TEST_CASE("recognition: mixup blends with the reversed batch, labels in the same share") {
  const Batch batch = random_batch(6, 4);
  Rng rng(2);
  const MixedBatch mixed = mix(batch, 5, {.mixup = 0.8}, rng);
  const std::vector<float> targets = to_vector<float>(mixed.targets);
  CHECK(targets[0] == doctest::Approx(1));  // image 0 and its partner 5 are both of class 0
  const float own = targets[5 + 1], other = targets[5 + 4];
  CHECK(own + other == doctest::Approx(1));
  const std::vector<float> x = to_vector<float>(batch.images), y = to_vector<float>(mixed.images);
  for (int i = 0; i < 48; ++i) CHECK(y[48 + i] == doctest::Approx(own * x[48 + i] + other * x[4 * 48 + i]));
}

TEST_CASE("recognition: CutMix pastes a rectangle whose area is the partner's share") {
  const Batch batch = random_batch(6, 16);
  const std::vector<float> x = to_vector<float>(batch.images);
  std::set<int64_t> areas;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(seed);
    const MixedBatch mixed = mix(batch, 5, {.cutmix = 1}, rng);
    const std::vector<float> y = to_vector<float>(mixed.images), targets = to_vector<float>(mixed.targets);
    int64_t pasted = 0;
    for (int64_t p = 0; p < 256; ++p) {
      const bool from_partner = y[768 + p] != x[768 + p];
      CHECK(y[768 + p] == (from_partner ? x[4 * 768 + p] : x[768 + p]));
      pasted += from_partner;
    }
    CHECK(targets[5 + 4] == doctest::Approx(static_cast<double>(pasted) / 256));
    areas.insert(pasted);
  }
  CHECK(areas.size() > 8);
}

TEST_CASE("recognition: without mixing a batch keeps its images and one-hot labels; labels are checked") {
  const Batch batch = random_batch(6, 4);
  Rng rng(2);
  const MixedBatch mixed = mix(batch, 5, {}, rng);
  CHECK(same_bits(mixed.images, batch.images));
  for (int64_t i = 0; i < 6; ++i) CHECK(to_vector<float>(mixed.targets)[i * 5 + i % 5] == 1);
  CHECK_THROWS_AS(mix(batch, 4, {}, rng), Error);
}

TEST_CASE("recognition: erasing fills one rectangle of allowed size with noise") {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    std::vector<float> planes(3 * 32 * 32, 2);
    Rng rng(seed);
    erase_rectangle(32, rng, planes.data());
    const int64_t erased = std::count_if(planes.begin(), planes.begin() + 1024, [](float v) { return v != 2; });
    CHECK(erased >= 0.015 * 1024);
    CHECK(erased <= 0.35 * 1024);
    CHECK(std::count_if(planes.begin(), planes.end(), [](float v) { return v != 2; }) == 3 * erased);
  }
}

TEST_CASE("recognition: label subsets are balanced, deterministic and nested") {
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < 1000; ++i) labels.push_back(i % 10 == 0 ? 2 : i % 2);  // 500 even ones: 400 of 0, 500 of 1
  const auto all = std::make_shared<Labels>(labels);
  const auto chosen = [&](double percent, uint64_t seed) {
    const auto part = balanced_subset(all, percent, seed);
    return dynamic_cast<const Subset&>(*part).indices();
  };
  const auto one = chosen(1, 1), ten = chosen(10, 1);
  CHECK(one.size() == 10);
  CHECK(ten.size() == 100);
  const auto of_class = [&](const std::vector<int64_t>& indices, int64_t c) {
    return std::count_if(indices.begin(), indices.end(), [&](int64_t i) { return labels[i] == c; });
  };
  CHECK(of_class(ten, 0) == 40);
  CHECK(of_class(ten, 1) == 50);
  CHECK(of_class(ten, 2) == 10);
  CHECK(std::includes(ten.begin(), ten.end(), one.begin(), one.end()));
  CHECK(chosen(10, 1) == ten);
  CHECK(chosen(10, 2) != ten);
  CHECK(chosen(0.0001, 1).size() == 3);  // at least one of each class
  CHECK(balanced_subset(all, 100, 1) == all);
  CHECK_THROWS_AS(balanced_subset(all, 0, 1), Error);
  CHECK(first_images(all, 7)->size() == 7);
  CHECK_THROWS_AS(first_images(all, 7)->read(7), Error);
}

TEST_CASE("addp: features of the encoder, and a classifier that starts from it") {
  TinyModels tiny(preset("tiny"), {});
  Rng rng(32);
  const int64_t size = tiny.config.image_size;
  const Tensor images = rng.uniform({3, 3, size, size});
  const Tensor features = recognition_features(tiny.model.encoder, images);
  CHECK(features.shape() == Shape{3, tiny.config.model.width});
  CHECK(!same_bits(features, recognition_features(tiny.model.encoder, images, true)));

  // The fine-tuning model started from the encoder computes the same features.
  VisionTransformer classifier(classifier_config(tiny.config, 5), {});
  start_from_encoder(classifier, tiny.model.encoder);
  const Var tokens = classifier.features(normalize_pixels(Var(images)));
  CHECK(same_bits(mean_axis(slice(tokens, 1, 1, tokens.dim(1)), 1).value(), features));
  CHECK(classifier(normalize_pixels(Var(images))).shape() == Shape{3, 5});
}

TEST_CASE("addp: the linear probe separates what is separable") {
  Rng rng(33);
  const int64_t N = 300, D = 8;
  std::vector<float> features = to_vector<float>(rng.normal({N, D}));
  std::vector<int64_t> labels(static_cast<size_t>(N));
  for (size_t i = 0; i < labels.size(); ++i) {
    labels[i] = static_cast<int64_t>(i % 3);
    features[i * D + i % 3] += 4;
  }
  const Tensor x = from_vector(features, {N, D}), y = from_vector(labels, {N});
  const LinearProbe probe = train_linear_probe(x, y, 3, preset("tiny").train_probe, Rng(34));
  CHECK(probe_accuracy(probe, x, y) > 0.9);
}

}  // namespace addp
