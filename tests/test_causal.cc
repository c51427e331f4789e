// The causal transformer and what it is sampled with, against plain computations.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/ops.h"
#include "nn/igpt.h"
#include "nn/kmeans.h"
#include "tests/compare.h"

using namespace addp;

namespace {

Tensor random_codes(int64_t B, int64_t L, int64_t V, uint64_t seed) {
  Rng rng(seed);
  std::vector<int64_t> codes(static_cast<size_t>(B * L));
  for (int64_t& code : codes) code = rng.below(V);
  return from_vector(codes, {B, L});
}

CausalTransformer small_model(Options options, uint64_t seed = 3) {
  CausalConfig config;
  config.vocabulary = 11, config.tokens = 9, config.width = 24, config.depth = 3, config.heads = 4;
  CausalTransformer model(config, options);
  initialize(model, Rng(seed));
  // Larger positions and embeddings than at the start of training, so that every place matters.
  for (NamedVar& p : parameters(model)) {
    if (p.var.rank() > 1) p.var.set_value(affine(p.var, 3, 0).value());
  }
  return model;
}

// softmax, temperature, top-k and top-p by sorting, of one row.
std::vector<double> plain_choice(std::vector<double> logits, const TokenChoice& choice) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  for (double& x : logits) x = std::exp((x - highest) / choice.temperature);
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  size_t kept = choice.top_k > 0 ? std::min<size_t>(choice.top_k, order.size()) : order.size();
  double total = 0, sum = 0;
  for (size_t i = 0; i < kept; ++i) total += logits[order[i]];
  for (size_t i = 0; i < kept; ++i) {
    sum += logits[order[i]];
    if (sum >= choice.top_p * total) kept = i + 1;
  }
  std::vector<double> result(logits.size());
  for (size_t i = 0; i < kept; ++i) result[order[i]] = logits[order[i]] / sum;
  return result;
}

}  // namespace

TEST_CASE("causal: no place sees a later code") {
  const CausalTransformer model = small_model(kDouble);
  const NoGrad no_grad;
  const Tensor codes = random_codes(2, 9, 11, 5);
  const std::vector<double> before = to_vector<double>(model.forward(codes).value());
  for (int64_t changed = 0; changed < 9; ++changed) {
    Tensor other = clone(codes);
    other.ptr<int64_t>()[changed] = (codes.ptr<int64_t>()[changed] + 1) % 11;
    const std::vector<double> after = to_vector<double>(model.forward(other).value());
    for (int64_t place = 0; place < 9; ++place) {
      double difference = 0;
      for (int64_t v = 0; v < 11; ++v) {
        const auto i = static_cast<size_t>(place * 11 + v);
        difference = std::max(difference, std::abs(after[i] - before[i]));
      }
      if (place <= changed) CHECK(difference == 0);
      else CHECK(difference > 1e-6);
    }
  }
}

TEST_CASE("causal: features of a place know its code and none after the next place's; they are normalised") {
  const CausalTransformer model = small_model(kDouble);
  const Tensor codes = random_codes(1, 9, 11, 5), features = model.features(codes);
  REQUIRE(features.shape() == Shape{1, 9, 24});
  for (int64_t changed = 0; changed < 8; ++changed) {
    Tensor other = clone(codes);
    other.ptr<int64_t>()[changed] = (codes.ptr<int64_t>()[changed] + 1) % 11;
    const Tensor after = model.features(other);
    const auto differs = [&](int64_t place) {
      return !std::equal(features.ptr<double>() + place * 24, features.ptr<double>() + (place + 1) * 24,
                         after.ptr<double>() + place * 24);
    };
    for (int64_t place = 0; place < changed; ++place) CHECK(!differs(place));
    CHECK(differs(changed));
  }
  for (int64_t place = 0; place < 9; ++place) {
    const double* row = features.ptr<double>() + place * 24;
    CHECK(std::accumulate(row, row + 24, 0.0) == doctest::Approx(0).scale(1));
    CHECK(std::inner_product(row, row + 24, row, 0.0) / 24 == doctest::Approx(1).epsilon(1e-3));
  }
}

TEST_CASE("causal: one token at a time gives the logits of the whole sequence") {
  for (const Options options : {kDouble, Options()}) {
    const CausalTransformer model = small_model(options);
    const NoGrad no_grad;
    const Tensor codes = random_codes(3, 9, 11, 6);
    const Tensor whole = model.forward(codes).value();
    std::vector<KeyValues> past;
    std::vector<Var> parts;
    for (int64_t place = 0; place < 9; ++place) {
      std::vector<int64_t> latest;
      for (int64_t b = 0; b < 3 && place > 0; ++b) latest.push_back(codes.ptr<int64_t>()[b * 9 + place - 1]);
      const Tensor read = place == 0 ? Tensor() : from_vector(latest, {3});
      parts.emplace_back(model.next_logits(read, 3, past).reshape({3, 1, 11}));
    }
    CHECK(largest_difference(concat(parts, 1).value(), whole) < (options.dtype == DType::f64 ? 1e-12 : 1e-4));
    CHECK_THROWS(model.next_logits(random_codes(3, 1, 11, 1).reshape({3}), 3, past));
  }
}

TEST_CASE("causal: greedy samples are the likeliest codes of the full forward pass, and a prefix is kept") {
  const CausalTransformer model = small_model(Options());
  const NoGrad no_grad;
  Rng rng(1);
  TokenChoice greedy;
  greedy.temperature = 0;
  const Tensor prefix = random_codes(2, 4, 11, 9);
  const Tensor codes = sample_codes(model, 2, greedy, rng, prefix);
  const std::vector<double> logits = to_vector<double>(model.forward(codes).value());
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t place = 0; place < 9; ++place) {
      const int64_t code = codes.ptr<int64_t>()[b * 9 + place];
      const auto row = logits.begin() + (b * 9 + place) * 11;
      if (place < 4) CHECK(code == prefix.ptr<int64_t>()[b * 4 + place]);
      else CHECK(code == std::max_element(row, row + 11) - row);
    }
  }
}

TEST_CASE("causal: samples follow the model's distribution") {
  const CausalTransformer model = small_model(Options());
  const NoGrad no_grad;
  constexpr int64_t kDraws = 20000;
  Rng rng(2);
  const Tensor codes = sample_codes(model, kDraws, {}, rng);
  const std::vector<double> first =
      plain_choice(to_vector<double>(slice(model.forward(random_codes(1, 9, 11, 1)), 1, 0, 1).value()), {});
  std::vector<double> counts(11);
  for (int64_t i = 0; i < kDraws; ++i) counts[static_cast<size_t>(codes.ptr<int64_t>()[i * 9])] += 1;
  double chi_square = 0;
  for (size_t v = 0; v < counts.size(); ++v) {
    const double expected = kDraws * first[v];
    chi_square += (counts[v] - expected) * (counts[v] - expected) / expected;
  }
  CHECK(chi_square < 29.6);  // 10 degrees of freedom: exceeded by one seed in a thousand
}

TEST_CASE("token choice: temperature, top-k and top-p as by sorting") {
  Rng rng(8);
  const int64_t N = 6, V = 17;
  const Tensor logits = affine(Var(rng.normal({N, V}, kDouble)), 2, 0).value();
  const std::vector<double> values = to_vector<double>(logits);
  for (const TokenChoice& choice : std::vector<TokenChoice>{
           {1, 0, 1}, {0.5, 0, 1}, {2, 0, 0.9}, {1, 3, 1}, {1, 1, 1}, {0.7, 5, 0.6}, {1, 40, 0.99}, {1, 0, 0.01}}) {
    INFO(choice.temperature, " ", choice.top_k, " ", choice.top_p);
    const std::vector<double> found = to_vector<double>(choice_probabilities(logits, choice));
    for (int64_t n = 0; n < N; ++n) {
      const std::vector<double> row(values.begin() + n * V, values.begin() + (n + 1) * V);
      const std::vector<double> expected = plain_choice(row, choice);
      for (int64_t v = 0; v < V; ++v)
        CHECK(found[static_cast<size_t>(n * V + v)] == doctest::Approx(expected[static_cast<size_t>(v)]).epsilon(1e-9));
    }
  }
  CHECK_THROWS(choice_probabilities(logits, {1, -1, 1}));
  CHECK_THROWS(choice_probabilities(logits, {1, 0, 0}));
  CHECK_THROWS(choice_probabilities(logits, {0, 0, 1}));
}

TEST_CASE("igpt: a palette of grey images is grey, ordered, and loses little") {
  Rng rng(4);
  const Tensor grey = rng.uniform({4, 1, 8, 8});
  Palette palette(12, {});
  const NoGrad no_grad;
  const Tensor images = concat({Var(grey), Var(grey), Var(grey)}, 1).value();
  palette.fit(images, rng);
  const std::vector<double> colours = to_vector<double>(palette.colours.value());
  for (size_t k = 0; k < 12; ++k) {
    CHECK(colours[3 * k] == doctest::Approx(colours[3 * k + 2]));
    if (k > 0) CHECK(colours[3 * k] > colours[3 * k - 3]);
  }
  const Tensor back = palette.image(palette.codes(images), 8);
  CHECK(back.shape() == images.shape());
  CHECK(largest_difference(back, images) < 0.15);
  CHECK(mean(abs(Var(back) - Var(images))).item() < 0.03);  // 1 / (4 K) for even grey levels
}

TEST_CASE("igpt: images shrink by averaging and come back as squares") {
  IgptConfig config;
  config.image_size = 8, config.size = 4, config.colours = 2;
  CausalConfig transformer;
  transformer.width = 8, transformer.depth = 1, transformer.heads = 1;
  Igpt model(config, transformer, {});
  copy_into(model.palette.colours.value(), from_vector<float>({0, 0, 0, 1, 1, 1}, {2, 3}));
  const Tensor codes = random_codes(2, 16, 2, 3);
  const Tensor image = model.image(codes);
  CHECK(image.shape() == Shape{2, 3, 8, 8});
  CHECK(same_bits(model.codes(image), codes));
  CHECK_THROWS(Igpt({9, 4, 2}, transformer, {}));
}

TEST_CASE("k-means finds clusters that lie apart") {
  Rng rng(6);
  std::vector<double> points;
  for (int i = 0; i < 300; ++i) {
    points.push_back(10 * (i % 3) + 0.1 * rng.normal());
    points.push_back(-10 * (i % 3) + 0.1 * rng.normal());
  }
  const Tensor vectors = from_vector(points, {300, 2});
  const Clusters found = kmeans(vectors, {points[0], points[1], points[2], points[3], points[4], points[5]}, 5, rng);
  for (size_t k = 0; k < 3; ++k) {
    CHECK(found.counts[k] == 100);
    CHECK(found.centroids[2 * k] == doctest::Approx(10.0 * static_cast<double>(k)).epsilon(0.05).scale(1));
  }
}

TEST_CASE("k-means: a cluster that no vector is near starts again at one of them") {
  const Tensor vectors = from_vector<double>({0, 0.1, 5, 5.1}, {4, 1});
  Rng rng(3);
  const Clusters once = kmeans(vectors, {1, 1000}, 1, rng);
  CHECK(once.centroids[0] == doctest::Approx(2.55));
  CHECK((once.centroids[1] >= 0 && once.centroids[1] <= 5.1));
  CHECK(once.counts[1] == 1);
}
