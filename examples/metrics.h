// metrics.jsonl: one JSON object a line, {"step":10,"loss":2.5,...}, for scripts and for the curves of the report.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tensor/files.h"

namespace addp {

using Scalars = std::vector<std::pair<std::string, double>>;  // names and values, in the order they are shown

struct Metrics {
  int64_t step = 0;
  Scalars values;
};

class MetricsWriter {
 public:
  explicit MetricsWriter(const std::string& path) : file_(path) {}  // continues an existing file
  void write(const Metrics& metrics);                               // NaN and infinity become null
  void sync() { file_.sync(); }

 private:
  AppendFile file_;
};

// All lines of a file; null is read as NaN, values that are no numbers are skipped. A torn last line (a kill while it
// was written) is ignored; any other malformed line is Error(data) with its number. A missing file has no lines.
std::vector<Metrics> read_metrics(const std::string& path);

// Drops the lines of steps after last_step, and a torn last line.
void truncate_metrics(const std::string& path, int64_t last_step);

}  // namespace addp
