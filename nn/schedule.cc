// The formulas of nn/schedule.h.
#include "nn/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tensor/error.h"

namespace addp {

double CosineSchedule::at(double position) const {
  if (position < warmup) return base * position / warmup;
  const double done = total > warmup ? std::min(1.0, (position - warmup) / (total - warmup)) : 1.0;
  return min + (base - min) * 0.5 * (1 + std::cos(std::numbers::pi * done));
}

int64_t layer_of_parameter(const std::string& name, int64_t depth) {
  const auto begins_with = [&](const char* start) { return name.rfind(start, 0) == 0; };
  if (name == "cls_token" || name == "pos_embed" || begins_with("patch_embed.")) return 0;
  if (!begins_with("blocks.")) return depth + 1;
  const int64_t block = std::stoll(name.substr(7));
  check(block < depth, "layer decay: '", name, "' in a model of depth ", depth);
  return block + 1;
}

double layer_scale(const std::string& name, int64_t depth, double decay) {
  return std::pow(decay, static_cast<double>(depth + 1 - layer_of_parameter(name, depth)));
}

}  // namespace addp
