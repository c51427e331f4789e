// One pass over all samples; what can only be judged at the end (gray among colour, empty classes) comes last.
#include "data/check.h"

#include <algorithm>

namespace addp {
namespace {

// Messages open with the file's name, which a finding has already.
Finding to_finding(const std::string& path, const Error& error) {
  const std::string text = error.what(), prefix = path + ": ";
  return {path, text.starts_with(prefix) ? text.substr(prefix.size()) : text};
}

void check_samples(const Dataset& dataset, DatasetReport& report) {
  std::vector<std::string> gray_files, colour_files;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    try {
      const Sample sample = dataset.read(i);
      const Image& image = sample.image;
      const auto [shorter, longer] = std::minmax(image.height, image.width);
      if (shorter < kTinySide) {
        report.findings.push_back({dataset.where(i), concat_text("tiny: ", image.width, "x", image.height, " pixels")});
      }
      report.min_side = report.images == 0 ? shorter : std::min(report.min_side, shorter);
      report.max_side = std::max(report.max_side, longer);
      (image.channels == 1 ? gray_files : colour_files).push_back(dataset.where(i));
      ++report.images;
      ++report.class_counts.at(sample.label);
    } catch (const Error& error) {
      report.findings.push_back(to_finding(dataset.where(i), error));
    }
  }
  report.gray = static_cast<int64_t>(gray_files.size());
  report.colour = static_cast<int64_t>(colour_files.size());
  if (report.gray == 0 || report.colour == 0) return;
  const bool gray_is_odd = report.gray <= report.colour;
  for (const std::string& path : gray_is_odd ? gray_files : colour_files) {
    report.findings.push_back({path, gray_is_odd ? "gray among coloured images" : "coloured among gray images"});
  }
}

}  // namespace

DatasetReport check_dataset(const std::string& spec, Split split) {
  DatasetReport report;
  report.name = spec;
  std::shared_ptr<const Dataset> dataset;
  try {
    dataset = open_dataset(spec, split);
  } catch (const Error& error) {
    report.findings.push_back(to_finding(spec, error));
    return report;
  }
  report.name = dataset->name;
  report.class_names = dataset->class_names;
  report.class_counts.assign(dataset->classes(), 0);
  report.findings = dataset->remarks;
  check_samples(*dataset, report);
  for (int64_t c = 0; c < dataset->classes(); ++c) {
    if (report.class_counts[c] > 0) continue;
    report.findings.push_back({spec, concat_text("class '", report.class_names[c], "' has no readable image in the ",
                                                 split_name(split), " split")});
  }
  return report;
}

}  // namespace addp
