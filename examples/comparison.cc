#include "examples/comparison.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "addp/addp.h"
#include "addp/backbone.h"
#include "addp/token_predictor.h"
#include "examples/event_file.h"
#include "examples/metrics.h"
#include "examples/run_config.h"
#include "examples/stage.h"
#include "examples/suggest.h"
#include "nn/igpt.h"
#include "nn/vit_vqgan.h"

namespace addp {
namespace {

template <class Kinds>
std::vector<std::string> keys_of(const Kinds& kinds) {
  std::vector<std::string> keys;
  for (const SystemKind& kind : kinds) keys.push_back(kind.key);
  return keys;
}

double parse_amount(const std::string& budget, const std::string& text) {
  double amount = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), amount);
  check_as(ErrorKind::usage, error == std::errc() && end == text.data() + text.size() && amount > 0,
           "--budget: expected steps:N or seconds:N, found '", budget, "'");
  return amount;
}

void check_labels(const std::vector<std::string>& labels) {
  for (const std::string& text : labels) {
    double percent = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), percent);
    check_as(ErrorKind::usage,
             error == std::errc() && end == text.data() + text.size() && percent > 0 && percent <= 100,
             "--labels: expected percentages in (0, 100], found '", text, "'");
  }
}

}  // namespace

const std::vector<SystemKind>& system_kinds() {
  static const std::vector<SystemKind> kinds = {
      {"addp", "ADDP", {"vqgan", "predictor", "addp"}, true, "its pixel encoder"},
      {"predictor",
       "ADDP's predictor",
       {"vqgan", "predictor"},
       true,
       "MAGE as it teaches ADDP, with as many steps as ADDP's budget gives it",
       "addp"},
      {"mage", "MAGE", {"vqgan", "predictor"}, true, "the token predictor alone, trained for the rest of the budget"},
      {"vit-vqgan", "ViT-VQGAN", {"vit-vqgan", "gpt"}, true, "causal transformer over codes; its middle layer"},
      {"igpt", "iGPT", {"igpt"}, true, "causal transformer over pixels; its middle layer"},
      {"supervised",
       "ViT, labels",
       {"finetune"},
       false,
       "ADDP's encoder trained on all labels; in the column of fine-tuning: on that share only, from scratch, for "
       "budget "
       "and task together"},
      {"random",
       "ViT, untrained",
       {"vqgan", "predictor", "addp"},
       false,
       "ADDP's encoder before training; fine-tuning, segmentation and detection from scratch",
       "addp"}};
  return kinds;
}

const SystemKind& system_kind(const std::string& key) {
  for (const SystemKind& kind : system_kinds()) {
    if (kind.key == key) return kind;
  }
  fail(ErrorKind::usage, unknown_name("system", key, keys_of(system_kinds())));
}

const std::vector<std::string>& task_names() {
  static const std::vector<std::string> names = {"probe", "knn", "finetune", "segment", "detect", "sample", "fid"};
  return names;
}

Comparison::Comparison(const CompareOptions& given) : options(given), config(resolve_config(given.config, "addp")) {
  if (options.systems.empty()) options.systems = keys_of(system_kinds());
  if (options.tasks.empty()) options.tasks = task_names();
  if (options.labels.empty()) options.labels = {"1"};
  if (options.data.data.empty()) options.data.data = "fashion-mnist";
  for (const std::string& key : options.systems) {
    const std::vector<std::string> before = keys_of(systems);
    if (std::find(before.begin(), before.end(), key) == before.end()) systems.push_back(system_kind(key));
  }
  for (const std::string& task : options.tasks) {
    check_as(ErrorKind::usage, std::find(task_names().begin(), task_names().end(), task) != task_names().end(),
             unknown_name("task", task, task_names()));
  }
  check_labels(options.labels);
  check_as(ErrorKind::usage, options.plan.empty() || (options.budget.empty() && !options.sweep),
           "--plan says steps and learning rates: leave out --budget and --sweep");
  const std::string& text = options.budget;
  if (text.empty()) {
    for (const std::string& stage : system_kind("addp").stages) budget += static_cast<double>(recipe(stage).steps);
  } else {
    in_seconds = text.starts_with("seconds:");
    budget = parse_amount(text, in_seconds ? text.substr(8) : text.starts_with("steps:") ? text.substr(6) : "");
  }
}

const StageConfig& Comparison::recipe(const std::string& stage) const { return config.*stage_kind(stage).recipe; }

bool Comparison::has_task(const std::string& task) const {
  return std::find(options.tasks.begin(), options.tasks.end(), task) != options.tasks.end();
}

std::vector<uint64_t> Comparison::seeds() const {
  std::vector<uint64_t> all;
  for (int64_t i = 0; i < options.seeds; ++i) all.push_back(options.common.seed + static_cast<uint64_t>(i));
  return all;
}

std::string Comparison::seed_folder(uint64_t seed) const { return concat_text(options.run, "/seed", seed); }

std::string Comparison::stage_folder(uint64_t seed, const SystemKind& system, const std::string& stage) const {
  if (stage == "vqgan") return seed_folder(seed) + "/vqgan";
  return seed_folder(seed) + "/" + system.trained_by() + "/" + stage;
}

std::string Comparison::system_folder(uint64_t seed, const SystemKind& system) const {
  return stage_folder(seed, system, system.stages.back());
}

std::string Comparison::task_folder(uint64_t seed, const SystemKind& system, const std::string& task) const {
  return seed_folder(seed) + "/" + system.key + "/task-" + task;
}

int64_t Comparison::task_steps(const std::string& stage) const {
  return options.task_steps > 0 ? options.task_steps : recipe(stage).steps;
}

int64_t network_parameters(const Config& config, const std::string& stage) {
  const Options on = {DType::f32, Device::cpu};
  const auto count = [](auto&& model) { return count_parameters(model); };
  if (stage == "vqgan") return count(Vqgan(config.vqgan, on));
  if (stage == "predictor") return count(TokenPredictor(config, on));
  if (stage == "addp") return count(Addp(config, on));
  if (stage == "vit-vqgan") return count(VitVqgan(config.vit_vqgan_config(), on));
  if (stage == "gpt") return count(CausalTransformer(config.gpt_config(), on));
  if (stage == "igpt") return count(Igpt(config.igpt_config(), config.causal, on));
  return count(EncoderBackbone(config, {.tokenizer_norm = config.finetune.tokenizer_norm}, Rng(1), on));
}

double training_seconds(const std::string& run) {
  const int64_t batch = [&] {
    const RunConfig config = read_run_config(run);
    return (config.config.*stage_kind(config.stage).recipe).batch;
  }();
  double seconds = 0;
  int64_t before = 0;
  for (const Metrics& line : read_metrics(run + "/metrics.jsonl")) {
    for (const auto& [name, value] : line.values) {
      if (name == "images/s" && value > 0) seconds += static_cast<double>((line.step - before) * batch) / value;
    }
    before = line.step;
  }
  return seconds;
}

double typical_duration(std::vector<double> durations) {
  constexpr size_t kFirst = 4;
  if (durations.size() <= kFirst) return 0;
  durations.erase(durations.begin(), durations.begin() + kFirst);
  std::sort(durations.begin(), durations.end());
  durations.resize(durations.size() - durations.size() / 10);
  return std::accumulate(durations.begin(), durations.end(), 0.0) / static_cast<double>(durations.size());
}

double step_seconds(const std::string& run) {
  std::vector<double> durations;
  double before = 0;
  for (const auto& entry : std::filesystem::directory_iterator(run)) {
    if (entry.path().filename().string().find("tfevents") == std::string::npos) continue;
    for (const Event& event : read_events(entry.path().string())) {
      if (event.tag == "loss" && before > 0) durations.push_back(event.wall_time - before);
      if (event.tag == "loss") before = event.wall_time;
    }
  }
  return typical_duration(durations);
}

}  // namespace addp
