// The commands of a comparison. Names of jobs: seed1.vqgan, seed1.addp.predictor, seed1.addp.probe, ...
#include <algorithm>
#include <cmath>

#include "examples/comparison.h"
#include "examples/encoder_of_run.h"

namespace addp {
namespace {

void append(std::vector<std::string>& words, const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
}

class JobList {
 public:
  JobList(const Comparison& comparison, const Schedule& schedule) : comparison_(comparison), schedule_(schedule) {}

  void add_system(uint64_t seed, const SystemKind& system) {
    seed_ = seed, system_ = &system;
    for (const std::string& stage : system.stages) add_stage(stage);
    if (comparison_.has_task("probe")) add_features_job("probe", "linear probe", 25);
    if (comparison_.has_task("knn")) add_features_job("knn", "nearest neighbours", 10);
    if (comparison_.has_task("finetune")) {
      for (const std::string& percent : comparison_.options.labels) add_finetuning(percent);
    }
    for (const std::string task : {"segment", "detect"}) {
      if (comparison_.has_task(task)) add_dense(task);
    }
    if (system.generates && comparison_.has_task("sample")) add_samples();
  }

  std::vector<Job> jobs;

 private:
  bool is_control() const { return system_->key == "random"; }
  std::string run() const { return comparison_.system_folder(seed_, *system_); }
  std::string seed_word() const { return concat_text("seed", seed_); }

  std::string stage_job(const std::string& stage) const {
    if (stage == "vqgan") return seed_word() + ".vqgan";
    return seed_word() + "." + (is_control() ? "addp" : system_->key) + "." + stage;
  }

  Job job(const std::string& task, const std::string& title) const {
    Job made;
    made.name = seed_word() + "." + system_->key + "." + task;
    made.title = concat_text("seed ", seed_, ", ", system_->title, ": ", title);
    made.kind = system_->key + "." + task;
    made.needs = {stage_job(system_->stages.back())};
    return made;
  }

  // ADDP and MAGE share their tokenizer: the second time it is there already.
  void add_stage(const std::string& stage) {
    const std::string name = stage_job(stage);
    if (std::any_of(jobs.begin(), jobs.end(), [&](const Job& other) { return other.name == name; })) return;
    Job made = job(stage, "training, " + stage);
    made.name = name;
    made.needs.clear();
    const std::vector<std::string>& stages = system_->stages;
    for (auto before = stages.begin(); before != stages.end() && *before != stage; ++before)
      made.needs.push_back(stage_job(*before));
    const int64_t steps = schedule_.steps.at(system_->key).at(stage);
    made.cost = guessed_seconds(stage, steps);
    made.arguments = train_arguments(comparison_, {stage, comparison_.stage_folder(seed_, *system_, stage), steps,
                                                   seed_, schedule_.rate_factor(stage), inputs(stage)});
    jobs.push_back(made);
  }

  std::vector<std::string> inputs(const std::string& stage) const {
    const auto of = [&](const std::string& other) { return comparison_.stage_folder(seed_, *system_, other); };
    if (stage == "predictor") return {"--tokenizer", of("vqgan")};
    if (stage == "addp") return {"--tokenizer", of("vqgan"), "--predictor", of("predictor")};
    if (stage == "gpt") return {"--tokenizer", of("vit-vqgan")};
    if (stage == "finetune") return {"--encoder", kNoEncoder, "--labels", "100"};
    return {};
  }

  void add_features_job(const std::string& command, const std::string& title, double cost) {
    Job made = job(command, title);
    made.cost = cost;
    made.arguments = {command};
    append(made.arguments, command == "probe" ? std::vector<std::string>{"--run", run()} : std::vector{run()});
    append(made.arguments, {"--seed", std::to_string(seed_), "--train", std::to_string(comparison_.options.train),
                            "--test", std::to_string(comparison_.options.test)});
    if (is_control()) made.arguments.push_back("--random-weights");
    jobs.push_back(made);
  }

  void add_finetuning(const std::string& percent) {
    Job made = job("finetune-" + percent, concat_text("fine-tuning with ", percent, " % of the labels"));
    const bool from_scratch = is_control() || system_->key == "supervised";
    int64_t steps = comparison_.task_steps("finetune");
    if (system_->key == "supervised") steps += schedule_.steps.at("supervised").at("finetune");
    made.cost = guessed_seconds("finetune", steps);
    if (from_scratch) made.needs.clear();
    made.arguments =
        train_arguments(comparison_, {"finetune",
                                      comparison_.task_folder(seed_, *system_, "finetune-" + percent),
                                      steps,
                                      seed_,
                                      from_scratch ? schedule_.rate_factor("finetune") : 1,
                                      {"--encoder", from_scratch ? kNoEncoder : run(), "--labels", percent}});
    jobs.push_back(made);
  }

  void add_dense(const std::string& task) {
    Job made = job(task, task == "segment" ? "segmentation" : "detection");
    const int64_t steps = comparison_.task_steps(task);
    made.cost = guessed_seconds(task, steps);
    if (is_control()) made.needs.clear();
    made.arguments = train_arguments(comparison_, {task,
                                                   comparison_.task_folder(seed_, *system_, task),
                                                   steps,
                                                   seed_,
                                                   1,
                                                   {"--encoder", is_control() ? kNoEncoder : run()}});
    jobs.push_back(made);
  }

  void add_samples() {
    Job made = job("sample", "sampling");
    made.cost = 8;
    made.arguments = {"sample", "--run", run(), "--seed", std::to_string(seed_), "--count", "64"};
    jobs.push_back(made);
  }

  const Comparison& comparison_;
  const Schedule& schedule_;
  uint64_t seed_ = 0;
  const SystemKind* system_ = nullptr;
};

}  // namespace

// Of the demo's preset on two cores; only their proportions matter once a job was done.
double guessed_seconds(const std::string& stage, int64_t steps) {
  static const std::map<std::string, double> step = {{"vqgan", 0.12},    {"predictor", 0.1}, {"addp", 0.24},
                                                     {"vit-vqgan", 0.1}, {"gpt", 0.08},      {"igpt", 0.3},
                                                     {"finetune", 0.06}, {"segment", 0.15},  {"detect", 0.15}};
  return 3 + step.at(stage) * static_cast<double>(steps);
}

std::vector<std::string> train_arguments(const Comparison& comparison, const Training& training) {
  const CompareOptions& options = comparison.options;
  const StageConfig& recipe = comparison.recipe(training.stage);
  const bool is_dense = training.stage == "segment" || training.stage == "detect";
  const int64_t steps = training.steps;
  const auto shrunk = [&](int64_t step) { return std::min(step, step * steps / std::max<int64_t>(1, recipe.steps)); };
  std::vector<std::string> words = {"train", training.stage, "--run", training.run, "--resume"};
  append(words, {"--preset", options.config.preset});
  if (!options.config.file.empty()) append(words, {"--config", options.config.file});
  for (const std::string& text : options.config.set) append(words, {"--set", text});
  if (!is_dense) append(words, {"--data", options.data.data});
  if (!is_dense && options.data.limit > 0) append(words, {"--limit", std::to_string(options.data.limit)});
  std::string fields = "train_" + training.stage;
  std::replace(fields.begin(), fields.end(), '-', '_');
  append(words, {"--seed", std::to_string(training.seed), "--steps", std::to_string(steps)});
  append(words, {"--set", concat_text(fields, ".warmup_steps=", shrunk(recipe.warmup_steps))});
  const int64_t gan_start = comparison.config.tokenizer.gan_start;
  const bool has_gan = (training.stage == "vqgan" || training.stage == "vit-vqgan") && gan_start > 0;
  if (has_gan) append(words, {"--set", concat_text("tokenizer.gan_start=", shrunk(gan_start))});
  if (training.rate_factor != 1) append(words, {"--lr", concat_text(recipe.base_lr * training.rate_factor)});
  append(words, {"--sample-every", std::to_string(steps), "--save-every",
                 std::to_string(std::max<int64_t>(20, steps / 8)), "--keep", "1"});
  append(words, training.extra);
  return words;
}

std::vector<Job> comparison_jobs(const Comparison& comparison, const Schedule& schedule) {
  JobList list(comparison, schedule);
  for (const uint64_t seed : comparison.seeds()) {
    for (const SystemKind& system : comparison.systems) list.add_system(seed, system);
  }
  return list.jobs;
}

}  // namespace addp
