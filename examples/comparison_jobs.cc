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
    for (const std::string command : {"probe", "knn"}) {
      if (comparison_.has_task(command)) jobs.push_back(features_job(comparison_, subject(), command));
    }
    if (comparison_.has_task("finetune")) {
      for (const std::string& percent : comparison_.options.labels) add_finetuning(percent);
    }
    for (const std::string task : {"segment", "detect"}) {
      if (comparison_.has_task(task)) add_dense(task);
    }
    if (system.generates && comparison_.has_task("sample")) add_samples();
    if (system.generates && comparison_.has_task("fid")) jobs.push_back(quality_job(comparison_, subject()));
  }

  std::vector<Job> jobs;

 private:
  bool is_control() const { return system_->key == "random"; }
  std::string run() const { return comparison_.system_folder(seed_, *system_); }
  std::string seed_word() const { return concat_text("seed", seed_); }

  std::string stage_job(const std::string& stage) const {
    if (stage == "vqgan") return seed_word() + ".vqgan";
    return seed_word() + "." + system_->trained_by() + "." + stage;
  }

  Subject subject() const {
    return {seed_word() + "." + system_->key,
            concat_text("seed ", seed_, ", ", system_->title),
            system_->key,
            run(),
            stage_job(system_->stages.back()),
            seed_,
            is_control()};
  }
  Job job(const std::string& task, const std::string& title, double cost = 1) const {
    return task_job(subject(), task, title, cost);
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
    Job made = job("sample", "sampling", 8);
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
  static const std::map<std::string, double> step = {
      {"vqgan", 0.12}, {"predictor", 0.1}, {"addp", 0.24},    {"vit-vqgan", 0.1}, {"gpt", 0.08},
      {"igpt", 0.3},   {"finetune", 0.06}, {"segment", 0.15}, {"detect", 0.15},   {"classifier", 0.06}};
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

Job task_job(const Subject& subject, const std::string& task, const std::string& title, double cost) {
  Job job;
  job.name = subject.name + "." + task;
  job.title = subject.title + ": " + title;
  job.kind = subject.kind + "." + task;
  job.needs = {subject.needs};
  job.cost = cost;
  return job;
}

Job features_job(const Comparison& comparison, const Subject& subject, const std::string& command) {
  const bool is_probe = command == "probe";
  Job job = task_job(subject, command, is_probe ? "linear probe" : "nearest neighbours", is_probe ? 25 : 10);
  job.arguments = {command};
  if (is_probe) job.arguments.push_back("--run");
  append(job.arguments, {subject.run, "--seed", std::to_string(subject.seed), "--train",
                         std::to_string(comparison.options.train), "--test", std::to_string(comparison.options.test)});
  if (subject.random_weights) job.arguments.push_back("--random-weights");
  return job;
}

static std::string judge_folder(const Comparison& comparison) { return comparison.options.run + "/judge"; }

std::vector<Job> judge_jobs(const Comparison& comparison) {
  if (!comparison.options.features.empty()) return {};
  const int64_t steps = comparison.recipe("classifier").steps;
  Job job;
  job.name = job.kind = "judge";
  job.title = "the classifier whose features judge images";
  job.cost = guessed_seconds("classifier", steps);
  job.arguments = train_arguments(
      comparison, {"classifier", judge_folder(comparison), steps, comparison.options.common.seed, 1, {}});
  return {job};
}

Job quality_job(const Comparison& comparison, const Subject& subject, int64_t steps, const std::string& out) {
  const CompareOptions& options = comparison.options;
  const std::string at = steps > 0 ? concat_text(" with ", steps, " steps") : "";
  Job job = task_job(subject, steps > 0 ? concat_text("fid-", steps) : "fid", "quality of images" + at,
                     0.05 * static_cast<double>(options.images));
  if (options.features.empty()) job.needs.push_back("judge");
  job.arguments = {"evaluate", "--run", subject.run, "--features",
                   options.features.empty() ? judge_folder(comparison) : options.features};
  append(job.arguments, {"--data", options.data.data, "--count", std::to_string(options.images)});
  append(job.arguments, {"--seed", std::to_string(subject.seed)});
  if (steps > 0) append(job.arguments, {"--steps", std::to_string(steps), "--out", out});
  return job;
}

std::vector<Job> comparison_jobs(const Comparison& comparison, const Schedule& schedule) {
  JobList list(comparison, schedule);
  if (comparison.has_task("fid")) list.jobs = judge_jobs(comparison);
  for (const uint64_t seed : comparison.seeds()) {
    for (const SystemKind& system : comparison.systems) list.add_system(seed, system);
  }
  return list.jobs;
}

}  // namespace addp
