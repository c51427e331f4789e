// The helpers of autograd/codes.h, which have no gradient, against simple loops.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "autograd/codes.h"
#include "tests/compare.h"

using namespace addp;

// The first code of the least distance, in double, for every row of z.
static std::vector<int64_t> plain_search(const Tensor& z, const Tensor& codebook) {
  const int64_t K = codebook.dim(0), D = codebook.dim(1), N = z.numel() / D;
  const std::vector<double> zs = to_vector<double>(z), cs = to_vector<double>(codebook);
  std::vector<int64_t> codes;
  for (int64_t r = 0; r < N; ++r) {
    int64_t best = 0;
    double best_distance = INFINITY;
    for (int64_t k = 0; k < K; ++k) {
      double distance = 0;
      for (int64_t d = 0; d < D; ++d) distance += std::pow(zs[r * D + d] - cs[k * D + d], 2);
      if (distance < best_distance) best = k, best_distance = distance;
    }
    codes.push_back(best);
  }
  return codes;
}

TEST_CASE("codes: nearest_codes against a plain search, the same in float32, the first on ties") {
  const int64_t N = 203, K = 37, D = 5;
  Tensor z = to(random_tensor({7, 29, D}, 1), {}), codebook = to(random_tensor({K, D}, 2), {});
  fill(codebook.view(9 * D, {D}), 0.25);
  fill(codebook.view(20 * D, {D}), 0.25);
  fill(z.view(0, {D}), 0.25);
  const std::vector<int64_t> expected = plain_search(z, codebook);
  CHECK(expected[0] == 9);
  const Tensor codes = nearest_codes(z, codebook);
  CHECK(codes.shape() == Shape{7, 29});
  CHECK(to_vector<int64_t>(codes) == expected);
  CHECK(to_vector<int64_t>(nearest_codes(to(z, kDouble), to(codebook, kDouble))) == expected);
  CHECK_THROWS_AS(nearest_codes(z, ones({K, D + 1})), Error);

  Tensor count, total;
  code_sums(z, codes, K, count, total);
  std::vector<float> counts(K), sums(K * D), values = to_vector<float>(z);
  for (int64_t r = 0; r < N; ++r) {
    ++counts[expected[r]];
    for (int64_t d = 0; d < D; ++d) sums[expected[r] * D + d] += values[r * D + d];
  }
  CHECK(to_vector<float>(count) == counts);
  CHECK(to_vector<float>(total) == sums);
  CHECK_THROWS_AS(code_sums(z, codes, 5, count, total), Error);
}

TEST_CASE("codes: nearest_codes where codes are close to each other, huge, tiny or not numbers") {
  const int64_t N = 45, K = 67, D = 33;
  for (const double scale : {1.0, 1e-3, 1e-22, 1e12, 1e17, 1e18}) {
    INFO(scale);
    std::vector<float> z = to_vector<float>(random_tensor({N, D}, 1)),
                       codes = to_vector<float>(random_tensor({K, D}, 2));
    // Three codes a unit in the last place from another, and rows that lie near them.
    for (int64_t i = 0; i < 3 * D; ++i) {
      codes[(40 + i / D) * D + i % D] = codes[i % D];
      if (i % D == 7 * (i / D)) codes[(40 + i / D) * D + i % D] = std::nextafter(codes[i % D], 9.0f);
    }
    for (int64_t i = 0; i < 20 * D; ++i) z[i] = codes[i % D] + 1e-3f * z[i];
    for (float& v : z) v *= static_cast<float>(scale);
    for (float& v : codes) v *= static_cast<float>(scale);
    const std::vector<int64_t> expected = plain_search(from_vector(z, {N, D}), from_vector(codes, {K, D}));
    CHECK(to_vector<int64_t>(nearest_codes(from_vector(z, {N, D}), from_vector(codes, {K, D}))) == expected);
    const std::vector<double> z64(z.begin(), z.end()), codes64(codes.begin(), codes.end());
    CHECK(to_vector<int64_t>(nearest_codes(from_vector(z64, {N, D}), from_vector(codes64, {K, D}))) == expected);
  }
  const float nan = std::nanf("");
  const Tensor z = from_vector<float>({1, nan, 3}, {3, 1}), codes = from_vector<float>({nan, 0.9f, 3.2f}, {3, 1});
  CHECK(to_vector<int64_t>(nearest_codes(z, codes)) == std::vector<int64_t>{1, 0, 2});
}

TEST_CASE("codes: smallest_mask, argmax") {
  const Tensor x = from_vector<float>({3, 1, 1, 2, 1, 0, 5, 5, 4, 5}, {2, 5});
  CHECK(to_vector<float>(smallest_mask(x, {2, 3})) == std::vector<float>{0, 1, 1, 0, 0, 1, 1, 0, 1, 0});
  CHECK(to_vector<float>(smallest_mask(x, {0, 5})) == std::vector<float>{0, 0, 0, 0, 0, 1, 1, 1, 1, 1});
  CHECK_THROWS_AS(smallest_mask(x, {6, 0}), Error);
  CHECK(to_vector<int64_t>(argmax(x)) == std::vector<int64_t>{0, 1});
  std::vector<double> row = to_vector<double>(random_tensor({1003}, 4));
  const int64_t first = std::max_element(row.begin(), row.end()) - row.begin();
  row[std::min<int64_t>(first + 16, 1002)] = row[first];
  CHECK(argmax(from_vector(row, {1, 1003})).item() == first);
}

TEST_CASE("codes: sample_categorical counts the cumulative sums below u") {
  const Tensor prob = from_vector<float>({0.25, 0.25, 0, 0.5}, {1, 4});
  for (const auto& [u, code] : {std::pair{0.0, 0}, {0.25, 0}, {0.3, 1}, {0.5, 1}, {0.51, 3}, {0.999, 3}, {1.0, 3}}) {
    CAPTURE(u);
    CHECK(sample_categorical(prob, full({1}, u)).item() == code);
  }
  CHECK_THROWS_AS(sample_categorical(prob, ones({2})), Error);
}

TEST_CASE("codes: top_p keeps the smallest set that reaches p") {
  const Tensor prob = from_vector<double>({0.125, 0.5, 0.25, 0.125}, {4});
  CHECK(to_vector<double>(top_p(prob, 0.5)) == std::vector<double>{0, 1, 0, 0});
  CHECK(to_vector<double>(top_p(prob, 0.75)) == std::vector<double>{0, 0.5 / 0.75, 0.25 / 0.75, 0});
  CHECK(to_vector<double>(top_p(prob, 0.8)) == std::vector<double>{0.125 / 0.875, 0.5 / 0.875, 0.25 / 0.875, 0});
  CHECK(to_vector<double>(top_p(prob, 1)) == to_vector<double>(prob));
  CHECK_THROWS_AS(top_p(prob, 0), Error);
}
