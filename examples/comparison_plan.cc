// The steps and learning rates of a comparison as a file.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "examples/comparison.h"
#include "examples/stage.h"
#include "tensor/files.h"

namespace addp {
namespace {

constexpr int64_t kMostBytes = 1 << 20;
constexpr int64_t kMostSteps = 1000000000;
constexpr double kGreatestFactor = 1e6;

int64_t steps_in(const nlohmann::json& value, const std::string& file, const std::string& name) {
  const bool fits = value.is_number_integer() && value >= 1 && value <= kMostSteps;
  check_as(ErrorKind::data, fits, file, ": ", name, ": expected steps from 1 to ", kMostSteps, ", found ",
           value.dump());
  return value.get<int64_t>();
}

double factor_in(const nlohmann::json& value, const std::string& file, const std::string& name) {
  const bool fits = value.is_number() && value > 0 && value <= kGreatestFactor;
  check_as(ErrorKind::data, fits, file, ": ", name, ": expected a factor in (0, ", kGreatestFactor, "], found ",
           value.dump());
  return value.get<double>();
}

const nlohmann::json& object_in(const nlohmann::json& json, const std::string& file, const std::string& name) {
  check_as(ErrorKind::data, json.is_object() && json.contains(name) && json[name].is_object(), file, ": expected \"",
           name, "\" with an object, as in the plan.json that `addp compare` writes");
  return json[name];
}

// Steps and factors are objects; what they hold is not checked.
nlohmann::json parse(const std::string& file) {
  nlohmann::json json = nlohmann::json::parse(read_file(file, ErrorKind::data, kMostBytes), nullptr, false);
  for (const char* name : {"steps", "learning_rate_factors"}) object_in(json, file, name);
  return json;
}

}  // namespace

void add_to_plan(const std::string& file, const Schedule& schedule) {
  nlohmann::json json;
  if (std::filesystem::exists(file)) json = parse(file);
  json["steps"].update(nlohmann::json(schedule.steps));
  json["learning_rate_factors"].update(nlohmann::json(schedule.rate_factors));
  write_file_atomically(file, json.dump(2) + "\n");
}

Schedule read_plan(const std::string& file, const Comparison& comparison) {
  const nlohmann::json json = parse(file);
  Schedule schedule;
  const nlohmann::json& all_steps = json["steps"];
  for (const SystemKind& system : comparison.systems) {
    check_as(ErrorKind::usage, all_steps.contains(system.key), file, ": has no steps for ", system.key,
             "; choose --systems that it has");
    const nlohmann::json& steps = object_in(all_steps, file, system.key);
    for (const std::string& stage : system.stages) {
      check_as(ErrorKind::usage, steps.contains(stage), file, ": has no steps for ", system.key, "'s stage ", stage);
      schedule.steps[system.key][stage] = steps_in(steps[stage], file, system.key + "." + stage);
    }
  }
  for (const auto& [stage, factor] : json["learning_rate_factors"].items())
    schedule.rate_factors[stage_kind(stage).name] = factor_in(factor, file, stage);
  return schedule;
}

}  // namespace addp
