// Arithmetic and layout of a profile.
#include "examples/profile_report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tensor/error.h"

namespace addp {
namespace {

using Json = nlohmann::ordered_json;

// A row as figures of one step.
struct Line {
  std::string phase, op;
  double calls, seconds, share;
  Cost cost;
};

// Phase by phase, the slowest first, and what no row explains at the end: memory, the graph, all other host code.
std::vector<Line> lines_of(const Profile& profile) {
  check(profile.steps > 0 && profile.seconds > 0, "profile: no step was profiled");
  std::vector<ProfileRow> rows = profile.rows();
  std::stable_sort(rows.begin(), rows.end(), [](const ProfileRow& a, const ProfileRow& b) {
    return a.phase != b.phase ? a.phase < b.phase : a.seconds > b.seconds;
  });
  const auto n = static_cast<double>(profile.steps);
  std::vector<Line> lines;
  double explained = 0;
  for (const ProfileRow& row : rows) {
    lines.push_back({phase_name(row.phase),
                     row.name,
                     static_cast<double>(row.calls) / n,
                     row.seconds / n,
                     row.seconds / profile.seconds,
                     {row.cost.flops / n, row.cost.bytes / n}});
    explained += row.seconds;
  }
  lines.push_back({"", "outside kernels", 0, (profile.seconds - explained) / n, 1 - explained / profile.seconds, {}});
  return lines;
}

void add(Line& sum, const Line& line) {
  sum.calls += line.calls;
  sum.seconds += line.seconds;
  sum.share += line.share;
  sum.cost.flops += line.cost.flops;
  sum.cost.bytes += line.cost.bytes;
}

std::string rate(double amount, double seconds, const char* format) {
  if (amount <= 0 || seconds <= 0) return "";
  char text[32];
  std::snprintf(text, sizeof(text), format, amount / seconds / 1e9);
  return text;
}

std::string text_of(const Line& line, const std::string& phase) {
  char text[160], calls[24] = "";
  if (line.calls > 0) std::snprintf(calls, sizeof(calls), "%.6g", line.calls);
  std::snprintf(text, sizeof(text), "%-10s %-22s %7s %10.3f %7.1f %9s %8s\n", phase.c_str(), line.op.c_str(), calls,
                1e3 * line.seconds, 100 * line.share, rate(line.cost.flops, line.seconds, "%.0f").c_str(),
                rate(line.cost.bytes, line.seconds, "%.1f").c_str());
  return text;
}

std::string memory_text(const Profile& profile, const std::vector<MemoryKind>& kinds) {
  std::string out = "\nmemory of a step, MiB                  held   needed at least\n";
  for (const MemoryKind& kind : kinds) {
    char text[160];
    std::snprintf(text, sizeof(text), "%-32s %10.1f %10.1f\n", kind.name.c_str(),
                  static_cast<double>(kind.held) / 1048576.0, static_cast<double>(kind.needed) / 1048576.0);
    out += text;
  }
  return out +
         concat_text("blocks taken from the operating system while profiling: ", profile.memory.system_blocks, "\n");
}

}  // namespace

std::vector<MemoryKind> memory_kinds(const StepMemory& memory, const HeldMemory& held) {
  const int64_t rest = memory.at_start - held.weights - held.frozen - held.optimizer;
  const int64_t activations = memory.before_backward - memory.at_start;
  const int64_t buffers = memory.peak - memory.before_backward;
  std::vector<MemoryKind> kinds = {{"weights in training", held.weights, held.weights},
                                   {"weights of frozen networks", held.frozen, held.frozen},
                                   {"optimizer's state", held.optimizer, held.optimizer},
                                   {"gradients, batches, other", rest, held.batch},
                                   {"activations before backward", activations, memory.activations_needed},
                                   {"buffers and gradients in flight", buffers, 0}};
  MemoryKind sum{"peak", 0, 0};
  for (const MemoryKind& kind : kinds) sum.held += kind.held, sum.needed += kind.needed;
  kinds.push_back(sum);
  return kinds;
}

std::string profile_text(const Profile& profile, const std::vector<MemoryKind>& kinds) {
  constexpr double kSmall = 0.002;
  const std::vector<Line> lines = lines_of(profile);
  const auto n = static_cast<double>(profile.steps);
  const Cost cost = profile.total_cost();
  char text[160];
  std::snprintf(text, sizeof(text), "\nprofile of %d steps, one of which took %.2f ms: %.0f GFLOP/s, %.1f GB/s\n",
                static_cast<int>(profile.steps), 1e3 * profile.seconds / n, cost.flops / profile.seconds / 1e9,
                cost.bytes / profile.seconds / 1e9);
  std::string out = text;
  out += "phase      op                       calls         ms       %   GFLOP/s     GB/s\n";
  for (size_t i = 0; i < lines.size();) {
    size_t end = i;
    Line phase{lines[i].phase, "", 0, 0, 0, {}}, small{lines[i].phase, "all below 0.2 %", 0, 0, 0, {}};
    std::string rows;
    for (; end < lines.size() && lines[end].phase == lines[i].phase; ++end) {
      add(phase, lines[end]);
      if (lines[end].share < kSmall) add(small, lines[end]);
      else rows += text_of(lines[end], "");
    }
    if (small.calls > 0) rows += text_of(small, "");
    const bool is_rest = phase.phase.empty();
    out += is_rest ? text_of(lines[i], "rest") : text_of(phase, phase.phase) + rows;
    i = end;
  }
  return kinds.empty() ? out : out + memory_text(profile, kinds);
}

std::string profile_json(const Profile& profile, const std::vector<MemoryKind>& kinds) {
  Json rows = Json::array(), memory = Json::object();
  for (const Line& line : lines_of(profile)) {
    rows.push_back({{"phase", line.phase},
                    {"op", line.op},
                    {"calls", line.calls},
                    {"seconds", line.seconds},
                    {"share", line.share},
                    {"flops", line.cost.flops},
                    {"bytes", line.cost.bytes}});
  }
  for (const MemoryKind& kind : kinds) memory[kind.name] = {{"held", kind.held}, {"needed", kind.needed}};
  const Json json = {{"steps", profile.steps},
                     {"seconds_per_step", profile.seconds / static_cast<double>(profile.steps)},
                     {"rows", rows},
                     {"memory", memory},
                     {"system_blocks", profile.memory.system_blocks}};
  return json.dump(1) + "\n";
}

}  // namespace addp
