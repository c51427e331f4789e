// Parity with the reference data in tests/golden, and that the check notices planted errors.
#include <doctest/doctest.h>

#include <filesystem>
#include <limits>
#include <sstream>

#include "examples/cmd_parity.h"
#include "examples/parity.h"

using namespace addp;
namespace fs = std::filesystem;

namespace {

const std::string kGolden = "tests/golden";

// A copy of the reference files that the test may spoil.
struct SpoiledCopy {
  std::string path = (fs::temp_directory_path() / concat_text("addp_parity_", this)).string();
  SpoiledCopy() {
    fs::create_directory(path);
    for (const auto& entry : fs::directory_iterator(kGolden))
      if (entry.path().extension() == ".safetensors") fs::copy(entry.path(), path);
  }
  ~SpoiledCopy() { fs::remove_all(path); }

  void add(const std::string& file, const std::string& tensor, double change) {
    const std::string name = path + "/" + file + ".safetensors";
    TensorFile content = read_safetensors(name);
    Tensor& x = content.tensors.at(tensor);
    std::vector<double> values = to_vector<double>(x);
    values.back() += change;
    x = to(from_vector(values, x.shape()), x.options());
    write_safetensors(name, content.tensors, content.metadata);
  }
};

// The outcome of one cheap check in both precisions.
bool mask_ratios_agree(const std::string& folder) {
  std::ostringstream out;
  parity::Golden golden(folder);
  parity::Report report(golden, out);
  for (DType precision : {DType::f64, DType::f32}) {
    report.begin(precision);
    parity::check_mask_ratios(golden, report, {precision, Device::cpu});
  }
  return report.print();
}

}  // namespace

TEST_CASE("parity: every reference value is reproduced") {
  std::ostringstream out;
  const int code = run_parity(kGolden, out);
  INFO(out.str());
  CHECK(code == 0);
  CHECK(out.str().find("FAILED") == std::string::npos);
  CHECK(out.str().find("not compared") == std::string::npos);
  CHECK(out.str().find("parity: ") != std::string::npos);
}

TEST_CASE("parity: planted errors are found") {
  SUBCASE("a code, a value") {
    SpoiledCopy copy;
    copy.add("addp_expected", "indices", 1);
    copy.add("vit_expected", "grad.head.bias", 1e-4);
    std::ostringstream out;
    CHECK(run_parity(copy.path, out) == 7);
    CHECK(out.str().find("addp_expected indices") != std::string::npos);
  }
  SUBCASE("small errors and NaN") {
    CHECK(mask_ratios_agree(kGolden));
    SpoiledCopy copy;
    copy.add("mask_ratios", "probs", 1e-8);
    CHECK(mask_ratios_agree(copy.path));
    copy.add("mask_ratios", "probs", 1e-6);
    CHECK_FALSE(mask_ratios_agree(copy.path));
  }
  SUBCASE("not a number") {
    SpoiledCopy copy;
    copy.add("mask_ratios", "ratios", std::numeric_limits<double>::quiet_NaN());
    CHECK_FALSE(mask_ratios_agree(copy.path));
  }
}

TEST_CASE("parity: what is missing is named") {
  SpoiledCopy copy;
  fs::remove(copy.path + "/gan_expected.safetensors");
  const auto message = [](const std::string& folder) {
    std::ostringstream out;
    try {
      run_parity(folder, out);
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::data);
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(message(copy.path).find("gan_expected") != std::string::npos);
  fs::remove(copy.path + "/vqgan_weights.safetensors");
  CHECK(message(copy.path).find("vqgan_weights") != std::string::npos);
  CHECK(message("no/such/folder").find("no such folder") != std::string::npos);
}
