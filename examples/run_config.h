// From command line to Config, and between Config and the config.json of a run folder.
#pragma once
#include <optional>
#include <string>

#include "addp/config.h"
#include "examples/options.h"
#include "tensor/tensor.h"

namespace addp {

// The resolved configuration of a new run: `start`, or the options' preset, and what the options say over it. stage:
// for ConfigOptions::stage_set. Throws Error(usage) for unknown fields or values.
Config resolve_config(const ConfigOptions& options, const std::string& stage, const std::optional<Config>& start = {});

// config.json holds every field and, under "run.", what the run was started with: run.stage, run.seed, run.data,
// run.limit, run.tokenizer, run.predictor, run.encoder (missing in older runs).
struct RunConfig {
  Config config;
  std::string stage, data, tokenizer, predictor;
  uint64_t seed = 1;
  int64_t limit = 0;
  std::string encoder;
};
std::string to_json(const RunConfig& run);
RunConfig read_run_config(const std::string& run_folder);  // throws Error(checkpoint) when missing or malformed
// Which fields differ, and how: "run.seed was 1, is 2"; empty when none does.
std::string differences(const RunConfig& old, const RunConfig& now);

// Sets the number of threads, and refuses devices that this build or this machine lacks.
void apply(const CommonOptions& options);
// What the networks of a command are made of: float32 on the chosen device.
Options network_options(const CommonOptions& options);

}  // namespace addp
