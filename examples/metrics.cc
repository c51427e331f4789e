// Metrics as JSON lines, by nlohmann-json.
#include "examples/metrics.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

namespace addp {
namespace {

std::string to_line(const Metrics& metrics) {
  nlohmann::ordered_json line = {{"step", metrics.step}};
  for (const auto& [name, value] : metrics.values) line[name] = value;
  return line.dump() + "\n";
}

// Throws nlohmann's exceptions.
Metrics from_line(const std::string& line) {
  const auto object = nlohmann::ordered_json::parse(line);
  Metrics metrics;
  metrics.step = object.at("step").get<int64_t>();
  for (const auto& [name, value] : object.items()) {
    if (name == "step") continue;
    if (value.is_null()) metrics.values.emplace_back(name, std::numeric_limits<double>::quiet_NaN());
    if (value.is_number()) metrics.values.emplace_back(name, value.get<double>());
  }
  return metrics;
}

}  // namespace

void MetricsWriter::write(const Metrics& metrics) { file_.append(to_line(metrics)); }

std::vector<Metrics> read_metrics(const std::string& path) {
  std::vector<Metrics> all;
  if (!std::filesystem::exists(path)) return all;
  const std::string text = read_file(path, ErrorKind::data);
  size_t number = 1;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1, ++number) {
    try {
      all.push_back(from_line(text.substr(begin, end - begin)));
    } catch (const nlohmann::json::exception& error) {
      fail(ErrorKind::data, path, ": line ", number, ": expected {\"step\": ..., NAME: NUMBER, ...} (", error.what(),
           ")");
    }
  }
  return all;
}

void truncate_metrics(const std::string& path, int64_t last_step) {
  if (!std::filesystem::exists(path)) return;
  std::string kept;
  for (const Metrics& metrics : read_metrics(path)) {
    if (metrics.step <= last_step) kept += to_line(metrics);
  }
  write_file_atomically(path, kept);
}

}  // namespace addp
