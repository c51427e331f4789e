// The report of data/check.h as text.
#include "examples/cmd_data_check.h"

#include <cstdio>

#include "data/check.h"

namespace addp {

int cmd_data_check(const DataOptions& options) {
  size_t findings = 0;
  for (Split split : {Split::train, Split::test}) {
    const DatasetReport report = check_dataset(options.data, split);
    std::printf("%s (%s): %lld readable images in %zu classes", report.name.c_str(), split_name(split),
                static_cast<long long>(report.images), report.class_names.size());
    if (report.images > 0) {
      std::printf(", sides %lld to %lld, %lld gray, %lld coloured", static_cast<long long>(report.min_side),
                  static_cast<long long>(report.max_side), static_cast<long long>(report.gray),
                  static_cast<long long>(report.colour));
    }
    std::printf("\n");
    for (size_t i = 0; i < report.class_names.size(); ++i) {
      std::printf("  %-24s %lld\n", report.class_names[i].c_str(), static_cast<long long>(report.class_counts[i]));
    }
    for (const Finding& finding : report.findings) {
      std::printf("  PROBLEM %s: %s\n", finding.path.c_str(), finding.reason.c_str());
    }
    findings += report.findings.size();
  }
  if (findings == 0) {
    std::printf("no problem found\n");
    return 0;
  }
  std::printf("%zu problems found: repair or remove what is named above\n", findings);
  return static_cast<int>(ErrorKind::data);
}

}  // namespace addp
