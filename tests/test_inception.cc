// InceptionV3 against torch-fidelity's on weights that follow from a formula (tests/reference/make_metrics.py), so that
// nothing but images and outputs is stored.
#include <cmath>

#include "nn/inception.h"
#include "nn/metrics.h"
#include "tensor/parallel.h"
#include "tensor/safetensors.h"
#include "tests/compare.h"
#include "tests/drive.h"
#include "tests/scratch.h"

namespace addp {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// SplitMix64 from the name's FNV-1a hash: numbers in [0, 1), as in the script.
void fill_by_formula(const std::string& name, const Tensor& x) {
  uint64_t start = 0xCBF29CE484222325;
  for (char c : name) start = (start ^ static_cast<uint8_t>(c)) * 0x100000001B3;
  const double fan_in = static_cast<double>(x.numel()) / static_cast<double>(x.dim(0));
  const bool is_scale = ends_with(name, "bn.weight") || ends_with(name, "running_var");
  const double bound = std::sqrt(6 / fan_in);
  parallel_ranges(x.numel(), 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint64_t z = start + (static_cast<uint64_t>(i) + 1) * 0x9E3779B97F4A7C15;
      z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
      z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
      z ^= z >> 31;
      const double u = static_cast<double>(z >> 40) * 0x1p-24;
      const double value = x.rank() > 1 ? (2 * u - 1) * bound : is_scale ? 0.5 + u : 0.1 * (2 * u - 1);
      x.ptr<float>()[i] = static_cast<float>(value);
    }
  });
}

InceptionV3& formula_model() {
  static InceptionV3 model = [] {
    InceptionV3 made((Options()));
    for (const auto& [name, tensor] : state_dict(made)) fill_by_formula(name, tensor);
    return made;
  }();
  return model;
}

const std::map<std::string, Tensor>& golden() {
  static const TensorFile file = read_safetensors("tests/golden/inception_expected.safetensors");
  return file.tensors;
}

Tensor from_bytes(const Tensor& images) { return affine(Var(to(images, Options())), 1.0 / 255, 0).value(); }

// Largest difference, as a share of the largest value.
double relative_difference(const Tensor& a, const Tensor& b) {
  double largest = 0;
  for (double v : to_vector<double>(b)) largest = std::max(largest, std::abs(v));
  return largest_difference(a, b) / largest;
}

}  // namespace

TEST_CASE("inception: features, FID, KID and score equal torch-fidelity's to 1e-4" * doctest::skip(kSanitized)) {
  const auto half = [](const Tensor& features, int64_t i) { return features.view(i * 4 * 2048, {4, 2048}); };
  const auto mmd2 = [&](const Tensor& features) { return polynomial_mmd2(half(features, 0), half(features, 1)); };
  const double expected_mmd2 = golden().at("mmd2").item();
  const auto check = [&](const InceptionV3& model, Options options) {
    const auto found = model(to(from_bytes(golden().at("images")), options));
    CHECK(relative_difference(found.features, golden().at("features")) < 1e-5);
    CHECK(relative_difference(found.logits, golden().at("logits")) < 1e-5);
    CHECK(frechet_distance(FeatureMoments(half(found.features, 0)), FeatureMoments(half(found.features, 1))) ==
          doctest::Approx(golden().at("fid").item()).epsilon(1e-5));
    CHECK(inception_score(found.logits, 1).mean == doctest::Approx(golden().at("score").item()).epsilon(1e-5));
    return mmd2(found.features);
  };
  // KID is a small difference of large means, which makes twenty times as much of the features' rounding errors.
  CHECK(check(formula_model(), Options()) == doctest::Approx(expected_mmd2).epsilon(1e-4));
  InceptionV3 exact(kDouble);
  load_state_dict(exact, state_dict(formula_model()), {.source = "formula"});
  CHECK(check(exact, kDouble) == doctest::Approx(expected_mmd2).epsilon(1e-5));
  CHECK(mmd2(golden().at("features")) == doctest::Approx(expected_mmd2).epsilon(1e-9));
}

TEST_CASE("inception: images that are larger in one direction and smaller in the other" * doctest::skip(kSanitized)) {
  const auto found = formula_model()(from_bytes(golden().at("wide")));
  CHECK(relative_difference(found.features, golden().at("wide.features")) < 1e-5);
  CHECK(relative_difference(found.logits, golden().at("wide.logits")) < 1e-5);
}

TEST_CASE("inception: values are rounded and clamped to 8 bits, resizing looks at i * in / out") {
  CHECK(to_vector<float>(to_eight_bits(from_vector<float>({-1, 0, 0.4980f, 0.4981f, 1, 2}, {6}))) ==
        std::vector<float>{0, 0, 127, 127, 255, 255});
  const Tensor row = from_vector<float>({0, 10, 0, 10}, {1, 1, 2, 2});
  const std::vector<float> wider = to_vector<float>(resize_like_tensorflow(row, 4));
  CHECK(std::vector<float>(wider.begin(), wider.begin() + 4) == std::vector<float>{0, 5, 10, 10});
}

TEST_CASE("inception: files that do not fit are refused with what is wrong") {
  const ScratchFolder folder;
  InceptionV3 model((Options()));
  const auto message = [&](const StateDict& state) {
    write_safetensors(folder / "w.safetensors", state);
    return message_of(ErrorKind::checkpoint, [&] { load_inception(model, folder / "w.safetensors"); });
  };
  CHECK(contains(message({{"fc.weight", zeros({1000, 2048})}}), "torchvision's InceptionV3 of 1000 classes"));
  CHECK(contains(message({{"fc.weight", zeros({1008, 2048})}}), "Conv2d_1a_3x3.conv.weight"));
  CHECK(contains(message({{"other", zeros({3})}}), "unexpected: other"));
  message_of(ErrorKind::checkpoint, [&] { load_inception(model, folder / "missing.pth"); });
}

}  // namespace addp
