// The budget: how it is shared out, what a step takes (a budget in seconds), which learning rates are best (--sweep).
#include <algorithm>
#include <cmath>
#include <functional>

#include "examples/comparison.h"
#include "examples/metrics.h"

namespace addp {
namespace {

constexpr int64_t kCalibrationSteps = 24;
constexpr double kRateFactors[] = {0.5, 1, 2};

// Stages of the systems, each once, in order.
std::vector<std::string> all_stages(const std::vector<SystemKind>& systems) {
  std::vector<std::string> stages;
  for (const SystemKind& system : systems) {
    for (const std::string& stage : system.stages) {
      if (std::find(stages.begin(), stages.end(), stage) == stages.end()) stages.push_back(stage);
    }
  }
  return stages;
}

std::vector<std::string> inputs(const std::string& stage,
                                const std::function<std::string(const std::string&)>& run_of) {
  if (stage == "predictor") return {"--tokenizer", run_of("vqgan")};
  if (stage == "addp") return {"--tokenizer", run_of("vqgan"), "--predictor", run_of("predictor")};
  if (stage == "gpt") return {"--tokenizer", run_of("vit-vqgan")};
  if (stage == "finetune") return {"--encoder", "none", "--labels", "100"};
  return {};
}

std::string factor_text(double factor) { return concat_text("x", factor); }

// What training minimises, averaged over the last quarter of its log: images are hardly seen twice by then, so this is
// as good as a figure on images that were left out. Infinite when there is none.
double last_loss(const std::string& run, const std::string& stage) {
  const std::string wanted = stage == "vqgan" || stage == "vit-vqgan" ? "l1" : "loss";
  std::vector<double> losses;
  for (const Metrics& line : read_metrics(run + "/metrics.jsonl")) {
    for (const auto& [name, value] : line.values) {
      if (name == wanted && std::isfinite(value)) losses.push_back(value);
    }
  }
  if (losses.empty()) return INFINITY;
  const size_t count = (losses.size() + 3) / 4;
  double sum = 0;
  for (size_t i = losses.size() - count; i < losses.size(); ++i) sum += losses[i];
  return sum / static_cast<double>(count);
}

std::string calibration_folder(const Comparison& comparison, const std::string& stage) {
  return comparison.options.run + "/calibration/" + stage;
}

std::string sweep_folder(const Comparison& comparison, const std::string& stage, double factor) {
  return comparison.options.run + "/sweep/" + stage + "-" + factor_text(factor);
}

// MAGE's share and that of ADDP's predictor depend on ADDP's, whether ADDP takes part or not.
std::vector<SystemKind> with_addp(std::vector<SystemKind> systems) {
  const auto is = [](const char* key) { return [key](const SystemKind& system) { return system.key == key; }; };
  const bool has_part = std::any_of(systems.begin(), systems.end(), is("mage")) ||
                        std::any_of(systems.begin(), systems.end(), is("predictor"));
  if (has_part && std::none_of(systems.begin(), systems.end(), is("addp"))) {
    systems.push_back(system_kind("addp"));
  }
  return systems;
}

// Of the first system that has the stage: ADDP's predictor, not MAGE's, so that a sweep is the same with other systems
// beside it and in `addp ablate`.
int64_t first_share(const Schedule& schedule, const std::string& stage) {
  for (const SystemKind& system : system_kinds()) {
    const auto shares = schedule.steps.find(system.key);
    if (shares != schedule.steps.end() && shares->second.count(stage) != 0) return shares->second.at(stage);
  }
  return 0;
}

}  // namespace

double Schedule::rate_factor(const std::string& stage) const {
  const auto found = rate_factors.find(stage);
  return found == rate_factors.end() ? 1 : found->second;
}

Schedule share_out(const Comparison& comparison, const std::map<std::string, double>& step_seconds) {
  Schedule schedule;
  schedule.step_seconds = step_seconds;
  const auto unit = [&](const std::string& stage) { return step_seconds.empty() ? 1.0 : step_seconds.at(stage); };
  // Steps of stages in the preset's proportions, together worth `amount`.
  const auto in_proportion = [&](const std::vector<std::string>& stages, double amount) {
    double whole = 0;
    for (const std::string& stage : stages) whole += static_cast<double>(comparison.recipe(stage).steps) * unit(stage);
    std::map<std::string, int64_t> steps;
    for (const std::string& stage : stages) {
      steps[stage] = std::llround(amount / whole * static_cast<double>(comparison.recipe(stage).steps));
    }
    return steps;
  };
  for (const SystemKind& system : with_addp(comparison.systems)) {
    std::map<std::string, int64_t>& steps = schedule.steps[system.key];
    const bool is_part = system.key == "mage" || system.key == "predictor";
    steps = in_proportion(is_part ? system_kind("addp").stages : system.stages, comparison.budget);
    if (is_part) steps.erase("addp");
    if (system.key == "mage") {
      const double left = comparison.budget - static_cast<double>(steps["vqgan"]) * unit("vqgan");
      steps["predictor"] = std::llround(left / unit("predictor"));
    }
    for (const auto& [stage, count] : steps) {
      check_as(ErrorKind::usage, count > 0, "--budget ", comparison.budget, ": leaves no step for ", system.title,
               "'s stage ", stage);
    }
  }
  return schedule;
}

std::vector<Job> calibration_jobs(const Comparison& comparison) {
  std::vector<Job> jobs;
  for (const std::string& stage : all_stages(with_addp(comparison.systems))) {
    Job job;
    job.name = "calibration." + stage;
    job.title = "what a step takes: " + stage;
    job.kind = job.name;
    job.cost = guessed_seconds(stage, kCalibrationSteps);
    const auto run_of = [&](const std::string& other) {
      job.needs.push_back("calibration." + other);
      return calibration_folder(comparison, other);
    };
    job.arguments = train_arguments(comparison, {stage, calibration_folder(comparison, stage), kCalibrationSteps,
                                                 comparison.options.common.seed, 1, inputs(stage, run_of)});
    job.arguments.insert(job.arguments.end(), {"--log-every", "1"});
    jobs.push_back(job);
  }
  return jobs;
}

std::map<std::string, double> measured_step_seconds(const Comparison& comparison) {
  std::map<std::string, double> seconds;
  for (const Job& job : calibration_jobs(comparison)) {
    const std::string stage = job.name.substr(job.name.find('.') + 1);
    seconds[stage] = step_seconds(calibration_folder(comparison, stage));
    check(seconds[stage] > 0, calibration_folder(comparison, stage), ": no times in its metrics.jsonl");
  }
  return seconds;
}

std::vector<Job> sweep_jobs(const Comparison& comparison, const Schedule& schedule) {
  std::vector<Job> jobs;
  for (const std::string& stage : all_stages(comparison.systems)) {
    const int64_t steps = first_share(schedule, stage);
    for (const double factor : kRateFactors) {
      Job job;
      job.name = "sweep." + stage + "-" + factor_text(factor);
      job.title = concat_text("learning rates: ", stage, " with ", factor, " of the preset's");
      job.kind = "sweep." + stage;
      const int64_t some = std::max<int64_t>(1, steps / 4);
      job.cost = guessed_seconds(stage, some);
      const auto run_of = [&](const std::string& other) {
        job.needs.push_back("sweep." + other + "-" + factor_text(1));
        return sweep_folder(comparison, other, 1);
      };
      job.arguments = train_arguments(comparison, {stage, sweep_folder(comparison, stage, factor), some,
                                                   comparison.options.common.seed, factor, inputs(stage, run_of)});
      jobs.push_back(job);
    }
  }
  return jobs;
}

std::map<std::string, double> best_rate_factors(const Comparison& comparison) {
  std::map<std::string, double> best;
  for (const std::string& stage : all_stages(comparison.systems)) {
    double least = INFINITY;
    best[stage] = 1;
    for (const double factor : kRateFactors) {
      const double loss = last_loss(sweep_folder(comparison, stage, factor), stage);
      if (loss < least) least = loss, best[stage] = factor;
    }
  }
  return best;
}

}  // namespace addp
