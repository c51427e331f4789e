// The report: reads what the other commands left in run folders.
#include "examples/cmd_report.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "examples/event_file.h"
#include "examples/metrics.h"
#include "examples/report.h"
#include "examples/results.h"
#include "tensor/error.h"
#include "tensor/files.h"

namespace addp {

namespace fs = std::filesystem;

namespace {

bool is_run(const fs::path& folder) { return fs::exists(folder / "config.json"); }

// "reconstruction_00000400.png" -> "reconstruction"; the newest picture of each name, in order of name.
std::map<std::string, fs::path> newest_pictures(const fs::path& samples) {
  std::map<std::string, fs::path> newest;
  if (!fs::is_directory(samples)) return newest;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(samples)) {
    if (entry.path().extension() == ".png") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    const std::string stem = file.stem().string();
    newest[stem.substr(0, stem.find_last_not_of("0123456789") + 1)] = file;
  }
  return newest;
}

void add_pictures(Report& report, const fs::path& run) {
  for (const auto& [name, file] : newest_pictures(run / "samples")) {
    const std::string png = read_file(file.string());
    const int zoom = png_size(png).width < 400 ? 2 : 1;
    report.add_image(file.stem().string(), png, zoom);
  }
}

void add_curves(Report& report, const fs::path& run) {
  const std::vector<Metrics> metrics = read_metrics((run / "metrics.jsonl").string());
  std::vector<std::string> names;
  for (const Metrics& line : metrics) {
    for (const auto& [name, value] : line.values) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  for (const std::string& name : names) {
    ChartOptions options;
    options.title = name;
    options.smoothing = 0.8;
    options.width = 460;
    options.height = 240;
    report.add_chart({metric_series(metrics, name)}, options);
  }
}

void add_configuration(Report& report, const fs::path& run) {
  const auto json = nlohmann::ordered_json::parse(read_file((run / "config.json").string()), nullptr, false);
  if (!json.is_object()) return;
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : json.items()) {
    rows.push_back({name, value.is_string() ? value.get<std::string>() : value.dump()});
  }
  report.add_table(rows, false);
}

void add_run(Report& report, const fs::path& run) {
  report.add_section(run.filename().string());
  for (const auto& [command, figures] : read_figures(run.string())) report.add_figures(figures);
  add_pictures(report, run);
  add_curves(report, run);
  add_configuration(report, run);
}

}  // namespace

void write_report(const std::string& folder) {
  std::vector<fs::path> runs;
  if (is_run(folder)) runs.push_back(folder);
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() && is_run(entry.path())) runs.push_back(entry.path());
  }
  check_as(ErrorKind::data, !runs.empty(), folder,
           ": holds no run (no config.json); a run folder comes from `addp train`");
  // In the order in which they were trained.
  std::sort(runs.begin(), runs.end(), [](const fs::path& a, const fs::path& b) {
    return fs::last_write_time(a / "config.json") < fs::last_write_time(b / "config.json");
  });
  Report report("addp: " + fs::path(folder).filename().string(),
                "Figures, sample pictures, curves and configuration of each stage.");
  for (const fs::path& run : runs) add_run(report, run);
  report.write(folder + "/report.html");
}

int cmd_report(const std::string& folder) {
  check_as(ErrorKind::usage, fs::is_directory(folder), folder, ": is no folder");
  std::string path = folder;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  write_report(path);
  std::printf("%s/report.html\n", path.c_str());
  return 0;
}

}  // namespace addp
