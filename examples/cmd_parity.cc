// Runs every check in both precisions.
#include "examples/cmd_parity.h"

#include <filesystem>
#include <iostream>

#include "examples/parity.h"
#include "examples/run_config.h"

namespace addp {

int run_parity(const std::string& folder, const CommonOptions& options) {
  apply(options);
  return run_parity(folder, std::cout, network_options(options).device);
}

int run_parity(const std::string& folder, std::ostream& out, Device device) {
  std::error_code ignored;
  check_as(ErrorKind::data, std::filesystem::is_directory(folder, ignored), folder, ": no such folder");
  parity::Golden golden(folder);
  // Missing files are named before minutes are spent.
  for (const char* file : {"vqgan_weights", "vqgan_expected", "mage_weights", "mage_expected", "addp_weights",
                           "addp_expected", "sampler_expected", "mask_ratios", "vit_weights", "vit_expected",
                           "adamw_expected", "discriminator_weights", "gan_expected"})
    golden.file(file);
  parity::Report report(golden, out);
  for (DType precision : {DType::f64, DType::f32}) {
    report.begin(precision);
    for (auto run : {parity::check_vqgan, parity::check_predictor, parity::check_addp, parity::check_sampler,
                     parity::check_mask_ratios, parity::check_classifier, parity::check_fine_tuning, parity::check_gan})
      run(golden, report, {precision, device});
  }
  return report.print() ? 0 : static_cast<int>(ErrorKind::check_failed);
}

}  // namespace addp
