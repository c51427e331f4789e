// Metrics of generated and reconstructed images against torch-fidelity, scikit-image and scipy
// (tests/reference/make_metrics.py), and on inputs whose answer is known.
#include <cmath>

#include "nn/image_quality.h"
#include "nn/metrics.h"
#include "nn/symmetric.h"
#include "tensor/parallel.h"
#include "tensor/safetensors.h"
#include "tests/compare.h"
#include "tests/scratch.h"

namespace addp {
namespace {

using doctest::Approx;

const std::map<std::string, Tensor>& golden() {
  static const TensorFile file = read_safetensors("tests/golden/metrics_expected.safetensors");
  return file.tensors;
}
Tensor expected(const std::string& name) { return golden().at(name); }
double expected_number(const std::string& name) { return expected(name).item(); }

Tensor first_rows(const Tensor& x, int64_t count) { return x.view(0, {count, x.dim(1)}); }

double fid(const Tensor& a, const Tensor& b) { return frechet_distance(FeatureMoments(a), FeatureMoments(b)); }

}  // namespace

TEST_CASE("metrics: FID equals torch-fidelity's, also with fewer images than features") {
  const Tensor a = expected("a"), b = expected("b");
  CHECK(fid(a, b) == Approx(expected_number("fid")).epsilon(1e-9));
  CHECK(fid(b, a) == Approx(expected_number("fid")).epsilon(1e-9));
  CHECK(fid(first_rows(a, 15), first_rows(b, 20)) == Approx(expected_number("fid.few")).epsilon(1e-6));
  CHECK(fid(to(a, Options()), to(b, Options())) == Approx(expected_number("fid")).epsilon(1e-5));
}

TEST_CASE("metrics: FID of a set with itself is 0, of shifted and scaled sets what the formula says") {
  const Tensor a = expected("a");
  CHECK(std::abs(fid(a, a)) < 1e-7);
  const Tensor shifted = affine(Var(a), 1, 0.5).value();
  CHECK(fid(a, shifted) == Approx(24 * 0.25));
  double variance = 0;
  const FeatureMoments moments(a);
  for (int64_t i = 0; i < 24; ++i) variance += moments.covariance.ptr<double>()[i * 25];
  const Tensor centred = (Var(a) - Var(moments.mean)).value();
  CHECK(fid(centred, affine(Var(centred), 3, 0).value()) == Approx(4 * variance));
  CHECK(fid(zeros({5, 3}), ones({5, 3})) == Approx(3));  // no variance at all
}

TEST_CASE("metrics: KID equals torch-fidelity's on the same subsets, and its subsets' mean and spread") {
  const Tensor a = expected("a"), b = expected("b");
  CHECK(polynomial_mmd2(first_rows(a, 100), first_rows(b, 100)) == Approx(expected_number("mmd2")).epsilon(1e-9));
  const MeanSpread all = kernel_distance(first_rows(a, 100), first_rows(b, 100), {3, 100}, Rng(1));
  CHECK(all.mean == Approx(expected_number("mmd2")).epsilon(1e-9));
  CHECK(all.deviation < 1e-10);
  // Other subsets than NumPy draws: 400 of them agree within a few standard errors.
  const MeanSpread some = kernel_distance(a, b, {400, 40}, Rng(1));
  const double spread = expected_number("kid.deviation");
  CHECK(std::abs(some.mean - expected_number("kid")) < 4 * spread / 20);
  CHECK(some.deviation == Approx(spread).epsilon(0.15));
  CHECK(kernel_distance(a, b, {400, 40}, Rng(1)).mean == some.mean);
  CHECK(kernel_distance(a, b, {400, 40}, Rng(2)).mean != some.mean);
}

TEST_CASE("metrics: the Inception score equals torch-fidelity's, and counts classes that are sure and even") {
  for (int64_t splits : {1, 10}) {
    INFO(splits);
    const std::vector<double> want = to_vector<double>(expected("score." + std::to_string(splits)));
    const MeanSpread score = inception_score(expected("logits"), splits);
    CHECK(score.mean == Approx(want[0]).epsilon(1e-9));
    CHECK(score.deviation == Approx(want[1]).epsilon(1e-9));
  }
  Tensor sure = zeros({20, 5});
  for (int64_t i = 0; i < 20; ++i) sure.ptr<float>()[i * 5 + i % 5] = 1000;
  CHECK(inception_score(sure, 1).mean == Approx(5));
  CHECK(inception_score(zeros({20, 5}), 2).mean == Approx(1));
}

TEST_CASE("metrics: precision and recall equal torch-fidelity's") {
  for (int64_t k : {3, 5}) {
    INFO(k);
    const std::vector<double> want = to_vector<double>(expected("precision_recall." + std::to_string(k)));
    const PrecisionRecall found = precision_recall(expected("near"), expected("a"), k);
    CHECK(found.precision == Approx(want[0]).epsilon(1e-6));
    CHECK(found.recall == Approx(want[1]).epsilon(1e-6));
    CHECK(found.precision > 0.1);
    CHECK(found.precision < 0.95);
  }
  const PrecisionRecall same = precision_recall(expected("a"), expected("a"));
  CHECK(same.precision == 1);
  CHECK(same.recall == 1);
  const PrecisionRecall far = precision_recall(expected("a"), affine(Var(expected("a")), 1, 100).value());
  CHECK(far.precision == 0);
  CHECK(far.recall == 0);
}

TEST_CASE("metrics: PSNR and SSIM equal scikit-image's") {
  const std::vector<double> p = to_vector<double>(expected("psnr")), s = to_vector<double>(expected("ssim"));
  const std::vector<double> psnr_found = psnr(expected("damaged"), expected("images"));
  const std::vector<double> ssim_found = ssim(expected("damaged"), expected("images"));
  REQUIRE(psnr_found.size() == p.size());
  for (size_t i = 0; i < p.size(); ++i) {
    INFO(i);
    CHECK(psnr_found[i] == Approx(p[i]).epsilon(1e-10));
    CHECK(ssim_found[i] == Approx(s[i]).epsilon(1e-10));
  }
  CHECK(mean_of(ssim(expected("images"), expected("images"))) == Approx(1));
  CHECK(std::isinf(psnr(expected("images"), expected("images"))[0]));
}

TEST_CASE("metrics: eigenvalues and factors of symmetric matrices") {
  const std::vector<double> want = to_vector<double>(expected("eigenvalues"));
  const std::vector<double> found = symmetric_eigenvalues(expected("symmetric"));
  REQUIRE(found.size() == want.size());
  for (size_t i = 0; i < want.size(); ++i) CHECK(std::abs(found[i] - want[i]) < 1e-12);
  CHECK(symmetric_eigenvalues(full({1, 1}, 3, kDouble)) == std::vector<double>{3});
  CHECK(symmetric_eigenvalues(zeros({4, 4}, kDouble)) == std::vector<double>(4, 0.0));

  // A product of a rank that both know, large enough for several tasks.
  const Tensor thin = random_tensor({150, 20});
  const Tensor product = matmul(Var(thin), Var(thin), false, true).value();
  const Tensor factor = semidefinite_factor(product);
  CHECK(factor.shape() == Shape{150, 20});
  CHECK(largest_difference(matmul(Var(factor), Var(factor), false, true).value(), product) < 1e-12);
  const std::vector<double> large = symmetric_eigenvalues(product);
  const std::vector<double> small = symmetric_eigenvalues(matmul(Var(thin), Var(thin), true, false).value());
  for (size_t i = 0; i < 20; ++i) CHECK(large[130 + i] == Approx(small[i]).epsilon(1e-11));
  for (size_t i = 0; i < 130; ++i) CHECK(std::abs(large[i]) < 1e-11);
}

TEST_CASE("metrics: the same bits for any number of threads") {
  const int threads = num_threads();
  const Tensor a = random_tensor({300, 90}, 1), b = random_tensor({280, 90}, 2);
  std::vector<std::vector<double>> results;
  for (int count : {1, 2, 5}) {
    set_num_threads(count);
    const PrecisionRecall pr = precision_recall(a, b);
    results.push_back({fid(a, b), kernel_distance(a, b, {5, 100}, Rng(1)).mean, pr.precision, pr.recall});
  }
  set_num_threads(threads);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

TEST_CASE("metrics: too few images, other widths and values that are no numbers are refused") {
  const Tensor a = expected("a"), one = first_rows(a, 1), other = ones({150, 7});
  const auto usage = [](const std::function<void()>& f) { return message_of(ErrorKind::usage, f); };
  CHECK(contains(usage([&] { FeatureMoments{one}; }), "FID: needs at least 2 images, found 1"));
  CHECK(contains(usage([&] { fid(a, other); }), "24 and 7"));
  CHECK(contains(usage([&] { kernel_distance(a, a, {10, 1000}, Rng(1)); }), "at least 1000 images, found 150"));
  CHECK(contains(usage([&] { inception_score(first_rows(a, 5), 10); }), "at least 10 images, found 5"));
  CHECK(contains(usage([&] { precision_recall(first_rows(a, 3), a); }), "at least 4 images, found 3"));
  CHECK(contains(usage([&] { ssim(ones({1, 3, 8, 8}), ones({1, 3, 8, 8})); }), "at least 11"));
  CHECK(contains(usage([&] { psnr(ones({1, 3, 8, 8}), ones({2, 3, 8, 8})); }), "PSNR"));
  message_of(ErrorKind::non_finite, [&] { FeatureMoments{full({4, 2}, NAN)}; });
}

}  // namespace addp
