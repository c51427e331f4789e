// Configuration files are JSON objects of the fields that addp/config.h visits.
#include "examples/run_config.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "examples/suggest.h"
#include "tensor/cpu_amx.h"
#include "tensor/dispatch.h"
#include "tensor/error.h"
#include "tensor/files.h"
#include "tensor/matmul_precision.h"
#include "tensor/parallel.h"

namespace addp {

using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kRunPrefix = "run.";

std::string value_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

Json parse_object(const std::string& path, ErrorKind kind) {
  const Json json = Json::parse(read_file(path), nullptr, false);
  check_as(kind, json.is_object(), path, ": is no JSON object of configuration fields");
  return json;
}

void set_known_field(Config& config, const std::string& name, const std::string& text) {
  std::vector<std::string> names;
  for (const auto& [known, value] : list_fields(config)) names.push_back(known);
  check_as(ErrorKind::usage, std::find(names.begin(), names.end(), name) != names.end(),
           unknown_name("configuration field", name, names));
  set_field(config, name, text);
}

// Assignments "name=value" with a prefix for the name.
void assign(Config& config, const std::string& prefix, const std::vector<std::string>& assignments) {
  for (const std::string& text : assignments) {
    const size_t equals = text.find('=');
    check_as(ErrorKind::usage, equals != std::string::npos, "--set: expected name=value, found '", text, "'");
    set_known_field(config, prefix + text.substr(0, equals), text.substr(equals + 1));
  }
}

}  // namespace

Config resolve_config(const ConfigOptions& options, const std::string& stage, const std::optional<Config>& start) {
  Config config = start ? *start : preset(options.preset);
  if (!options.file.empty()) {
    check_as(ErrorKind::usage, std::filesystem::exists(options.file), "--config: ", options.file, " does not exist");
    const Json json = parse_object(options.file, ErrorKind::usage);
    for (const auto& [name, value] : json.items()) {
      if (name.rfind(kRunPrefix, 0) != 0) set_known_field(config, name, value_text(value));
    }
  }
  assign(config, "", options.set);
  std::string fields = "train_" + stage + ".";
  std::replace(fields.begin(), fields.end(), '-', '_');
  assign(config, fields, options.stage_set);
  config.validate();
  return config;
}

std::string to_json(const RunConfig& run) {
  Json json;
  json["run.stage"] = run.stage;
  json["run.seed"] = run.seed;
  json["run.data"] = run.data;
  json["run.limit"] = run.limit;
  json["run.tokenizer"] = run.tokenizer;
  json["run.predictor"] = run.predictor;
  json["run.encoder"] = run.encoder;
  for (const auto& [name, text] : list_fields(run.config)) json[name] = text;
  return json.dump(2) + "\n";
}

RunConfig read_run_config(const std::string& run_folder) {
  const std::string path = run_folder + "/config.json";
  check_as(ErrorKind::checkpoint, std::filesystem::exists(path), path,
           ": does not exist; is this a run folder of `addp train`?");
  RunConfig run;
  try {
    const Json json = parse_object(path, ErrorKind::checkpoint);
    run.stage = json.at("run.stage");
    run.seed = json.at("run.seed");
    run.data = json.at("run.data");
    run.limit = json.at("run.limit");
    run.tokenizer = json.at("run.tokenizer");
    run.predictor = json.at("run.predictor");
    run.encoder = json.value("run.encoder", "");
    for (const auto& [name, value] : json.items()) {
      if (name.rfind(kRunPrefix, 0) != 0) set_field(run.config, name, value_text(value));
    }
    run.config.validate();
  } catch (const Json::exception& error) {
    fail(ErrorKind::checkpoint, path, ": ", error.what());
  } catch (const Error& error) {
    fail(ErrorKind::checkpoint, path, ": ", error.what());
  }
  return run;
}

std::string differences(const RunConfig& old, const RunConfig& now) {
  const Json before = Json::parse(to_json(old)), after = Json::parse(to_json(now));
  std::string text;
  for (const auto& [name, value] : before.items()) {
    if (value == after[name]) continue;
    text += concat_text(text.empty() ? "" : ", ", name, " was ", value_text(value), ", is ", value_text(after[name]));
  }
  return text;
}

void apply(const CommonOptions& options) {
  if (options.device != "cpu") {
    check_as(ErrorKind::device, options.device == cuda_backend_name(), "--device ", options.device,
             options.device == "cuda"
                 ? ": this program was built without nvcc; `make cuda` builds build/cuda/addp, or use"
                 : ": this program was built for GPUs; `make` builds build/addp, or use",
             " --device cpu");
    current_cuda();  // fails here where there is no GPU
  }
  check_as(ErrorKind::usage, options.matmul == "f32" || options.device != "cpu", "--matmul ", options.matmul,
           ": the CPU multiplies in float32 only; with --device cuda it may be tf32 or bf16");
  set_matmul_precision(matmul_precision_of(options.matmul));
  if (options.threads > 0) set_num_threads(options.threads);
  cpu::has_amx();  // a wrong ADDP_AMX is found here
}

Options network_options(const CommonOptions& options) {
  return {DType::f32, options.device == "cpu" ? Device::cpu : Device::cuda};
}

}  // namespace addp
