// One line a kernel: e(i) is the size of an element of pointer i, all(i) the bytes from there to the end of its
// allocation, n(i) the i-th number, in the order of the kernel's parameters (structures are not among them).
#include "tests/emulator_traffic.h"

#include <algorithm>
#include <map>
#include <set>

namespace addp {
namespace {

struct Arguments {
  const emulator::Launch& launch;

  double e(size_t i) const { return static_cast<double>(launch.pointers.at(i).element_bytes); }
  double all(size_t i) const { return static_cast<double>(launch.pointers.at(i).extent); }
  double n(size_t i) const { return launch.numbers.at(i); }
  double all_of_them() const {
    double sum = 0;
    for (size_t i = 0; i < launch.pointers.size(); ++i) sum += all(i);
    return sum;
  }
  double elements() const {  // one of each pointer
    double sum = 0;
    for (size_t i = 0; i < launch.pointers.size(); ++i) sum += e(i);
    return sum;
  }
};

// A group that the cache cannot keep is read for its sums and once more for its result.
double group_norm_fwd(const Arguments& a) {
  const double groups = a.n(0), channels = a.n(1), size = channels * a.n(2) * a.e(0), G = a.n(3);
  const double reads = size > static_cast<double>(emulator::kCacheShare) ? 2 : 1;
  return groups * size * (reads + 1) + a.e(0) * (2 * groups + 2 * std::min(G, groups) * channels);
}

const std::map<std::string, double (*)(const Arguments&)>& formulas() {
  static const std::map<std::string, double (*)(const Arguments&)> list = {
      // The factors end with a bool and three bytes that nobody touches.
      {"adamw_factors_kernel", [](const Arguments& a) { return a.elements() + 2 * a.e(1) - 3; }},
      {"adamw_kernel", [](const Arguments& a) { return 7 * a.n(0) * a.e(0) + a.e(4) - 3; }},
      {"attention_balance_kernel", [](const Arguments& a) { return 2 * a.all(0) / 3; }},
      {"attention_delta_kernel", [](const Arguments& a) { return a.all_of_them(); }},
      {"attention_dkv_kernel", [](const Arguments& a) { return a.all_of_them() - a.all(0) / 3; }},
      {"attention_dq_kernel", [](const Arguments& a) { return a.all_of_them() - 2 * a.all(0) / 3; }},
      {"attention_fwd_kernel", [](const Arguments& a) { return a.all_of_them(); }},
      {"bias_rows_kernel", [](const Arguments& a) { return a.e(0) * (a.n(0) + a.n(1)); }},
      {"broadcast_axis_kernel", [](const Arguments& a) { return a.e(0) * (a.n(0) + a.n(0) / a.n(1)); }},
      {"broadcast_map_kernel", [](const Arguments& a) { return a.n(0) * (a.elements() - a.e(1)) + a.n(1) * a.e(1); }},
      {"convert_kernel", [](const Arguments& a) { return a.n(0) * a.elements(); }},
      {"copy_blocks_kernel", [](const Arguments& a) { return 2 * a.n(2) * a.n(3) * a.e(0); }},
      {"cross_entropy_kernel",
       [](const Arguments& a) { return a.n(0) * (24 + 2 * a.n(1) * a.e(2) - 4 * (a.e(2) < 8)) + 8; }},
      {"dropout_kernel", [](const Arguments& a) { return 2 * a.n(0) * a.e(0) + 8; }},
      {"fill_kernel", [](const Arguments& a) { return a.n(0) * a.e(0); }},
      {"gather_rows_kernel",
       [](const Arguments& a) {
         const double rows = a.n(0), D = a.n(3), sources = a.n(4) != 0 ? std::min(rows, a.n(1)) : rows;
         return (rows + sources) * D * a.e(0) + 8 * rows;
       }},
      {"group_norm_fwd_kernel", group_norm_fwd},
      {"layer_norm_bwd_kernel",
       [](const Arguments& a) {
         const double N = a.n(0), D = a.n(1), blocks = a.n(2);
         return a.e(0) * (3 * N * D + 2 * blocks * D + 2 * N + D);
       }},
      {"layer_norm_fwd_kernel",
       [](const Arguments& a) { return a.e(0) * (2 * a.n(0) * a.n(1) + 2 * a.n(0) + 2 * a.n(1)); }},
      {"map_kernel", [](const Arguments& a) { return a.n(0) * a.elements(); }},
      {"permute_kernel", [](const Arguments& a) { return 2 * a.n(0) * a.e(0); }},
      {"scatter_rows_kernel",
       [](const Arguments& a) {
         const double tables = a.n(0), N = a.n(1), rows = a.n(2), D = a.n(3);
         return tables * ((N + rows) * D * a.e(0) + 8 * rows);
       }},
      {"select_rows_kernel",
       [](const Arguments& a) {
         const double N = a.n(2), D = a.n(3), sources = (a.all(2) > 0 ? a.n(0) : 0) + (a.all(3) > 0 ? a.n(1) : 0);
         return a.e(0) * (N * D + std::min(N, sources) * D + N);
       }},
      {"soft_cross_entropy_kernel",
       [](const Arguments& a) { return a.n(0) * (8 + a.e(1) * (2 * a.n(1) + a.n(2) + 1)) + 8; }},
      {"softmax_fwd_kernel", [](const Arguments& a) { return 2 * a.n(0) * a.n(1) * a.e(0); }},
      {"spread_windows_kernel", [](const Arguments& a) { return a.all_of_them(); }},
      {"sum_columns_kernel", [](const Arguments& a) { return a.n(0) * a.n(2) * (a.n(3) * a.e(0) + a.n(1) * a.e(1)); }},
      {"sum_rows_kernel", [](const Arguments& a) { return a.n(0) * (a.n(2) * a.e(0) + a.n(1) * a.e(1)); }},
      {"sum_windows_kernel", [](const Arguments& a) { return a.all_of_them(); }},
      {"transpose_kernel", [](const Arguments& a) { return 2 * a.n(0) * a.n(1) * a.n(2) * a.e(0); }},
  };
  return list;
}

}  // namespace

std::string plain_name(const emulator::Launch& launch) { return launch.name.substr(0, launch.name.find('<')); }

double traffic(const emulator::Launch& launch) {
  const std::string name = plain_name(launch);
  if (name == "gemm") return launch.fetched + launch.stored;
  const auto found = formulas().find(name);
  check(found != formulas().end(), "traffic: no formula for ", launch.name);
  return found->second(Arguments{launch});
}

bool depends_on_data(const emulator::Launch& launch) {
  static const std::set<std::string> names = {"cross_entropy_kernel", "dropout_kernel",
                                              "gather_rows_kernel",   "scatter_rows_kernel",
                                              "select_rows_kernel",   "soft_cross_entropy_kernel"};
  return names.count(plain_name(launch)) > 0;
}

}  // namespace addp
