// How much is masked, and where: the official table of ratios, nested masks, MAGE's masks, places.
#include <doctest/doctest.h>

#include <set>

#include "addp/masking.h"
#include "tensor/safetensors.h"

namespace addp {

TEST_CASE("addp: mask ratios equal the official table") {
  const MaskRatios table = mask_ratios({});
  const TensorFile golden = read_safetensors("tests/golden/mask_ratios.safetensors");
  const std::vector<double> ratios = to_vector<double>(golden.tensors.at("ratios"));
  const std::vector<double> probs = to_vector<double>(golden.tensors.at("probs"));
  REQUIRE(table.ratio.size() == ratios.size());
  for (size_t i = 0; i < ratios.size(); ++i) {
    CHECK(table.ratio[i] == doctest::Approx(ratios[i]).epsilon(1e-14));
    CHECK(table.probability[i] == doctest::Approx(probs[i]).epsilon(1e-12));
  }
}

TEST_CASE("addp: masked counts round up") {
  CHECK(masked_count(64, 0.5) == 32);
  CHECK(masked_count(64, 0.5001) == 33);
  CHECK(masked_count(25, 0.5) == 13);
  CHECK(masked_count(64, 1.0) == 64);
  CHECK(masked_count(64, 0.0) == 0);
}

TEST_CASE("addp: training masks are nested and equally large in every image") {
  const MaskingConfig config;
  Rng rng(7);
  std::set<int64_t> counts;
  for (int i = 0; i < 50; ++i) {
    const NestedMasks masks = draw_nested_masks(3, 49, config, rng, {});
    const int64_t now = ones_per_row(masks.mask_t), next = ones_per_row(masks.mask_t_next);
    CHECK(now >= 25);
    CHECK(next >= now);
    const std::vector<float> a = to_vector<float>(masks.mask_t), b = to_vector<float>(masks.mask_t_next);
    for (size_t k = 0; k < a.size(); ++k) CHECK(a[k] <= b[k]);
    counts.insert(now);
  }
  CHECK(counts.size() > 5);
}

TEST_CASE("addp: MAGE masks drop exactly half and lie inside what is masked") {
  Rng rng(8);
  for (int i = 0; i < 20; ++i) {
    const MageMasks masks = draw_mage_masks(2, 25, {}, rng, {});
    CHECK(ones_per_row(masks.mask_dropped) == 13);
    CHECK(ones_per_row(masks.mask_all) >= 13);
    const std::vector<float> dropped = to_vector<float>(masks.mask_dropped), all = to_vector<float>(masks.mask_all);
    for (size_t k = 0; k < all.size(); ++k) CHECK(dropped[k] <= all[k]);
  }
}

TEST_CASE("addp: places lists positions in raster order") {
  const Tensor mask = from_vector(std::vector<float>{1, 0, 0, 1, 0, 1, 1, 0}, {2, 4});
  CHECK(to_vector<int64_t>(places(mask, 1)) == std::vector<int64_t>{0, 3, 1, 2});
  CHECK(to_vector<int64_t>(places(mask, 0)) == std::vector<int64_t>{1, 2, 0, 3});

  // Rows of [class, tokens], and back. Of the masked places the last of each image was dropped.
  CHECK(to_vector<int64_t>(unreliable_rows(mask)) == std::vector<int64_t>{1, 4, 2, 3});
  CHECK(to_vector<int64_t>(reliable_rows(mask)) == std::vector<int64_t>{0, 2, 3, 0, 1, 4});
  const Tensor dropped = from_vector(std::vector<float>{0, 0, 0, 1, 0, 0, 1, 0}, {2, 4});
  CHECK(to_vector<int64_t>(rows_of_places(mask, mask)) == std::vector<int64_t>{0, 0, 1, 2, 0, 0, 1, 0, 0, 2});
  CHECK(to_vector<int64_t>(rows_of_places(mask, dropped)) == std::vector<int64_t>{0, 0, 2, 3, 0, 0, 1, 0, 0, 3});
  const Tensor codes = from_vector(std::vector<int64_t>{10, 11, 12, 13, 20, 21, 22, (1 << 24) - 1}, {2, 4});
  CHECK(to_vector<int64_t>(at_rows(codes, unreliable_rows(mask))) == std::vector<int64_t>{10, 13, 21, 22});
  const Var taken(from_vector(std::vector<float>{1, 2, 3, 4}, {2, 2, 1}));
  CHECK(to_vector<float>(spread(taken, mask).value()) == std::vector<float>{1, 1, 1, 2, 3, 3, 4, 3});
  CHECK_THROWS_AS(ones_per_row(from_vector(std::vector<float>{1, 0, 1, 1}, {2, 2})), Error);
}

}  // namespace addp
