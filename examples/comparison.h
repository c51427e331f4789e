// What `addp compare` compares: ADDP and its neighbours, trained on the same data with the same budget, and the tasks
// that judge them. Here are the systems, their shares of the budget and the commands to run (comparison_*.cc); jobs.h
// runs them, comparison_table.h collects what they found.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "addp/config.h"
#include "examples/jobs.h"
#include "examples/options.h"

namespace addp {

struct SystemKind {
  std::string key, title;           // "mage", "MAGE"
  std::vector<std::string> stages;  // trained one after another; the last one's run is the system
  bool generates = false;
  std::string note;        // what is behind the name, for the table
  std::string owner = "";  // the system whose runs these are; empty: it trains its own

  const std::string& trained_by() const { return owner.empty() ? key : owner; }
};
const std::vector<SystemKind>& system_kinds();
const SystemKind& system_kind(const std::string& key);

// probe, knn, finetune, segment, detect, sample, fid
const std::vector<std::string>& task_names();

// What the options mean: names checked, defaults filled in. Throws Error(usage).
struct Comparison {
  explicit Comparison(const CompareOptions& options);

  const StageConfig& recipe(const std::string& stage) const;
  bool has_task(const std::string& task) const;
  std::vector<uint64_t> seeds() const;
  std::string seed_folder(uint64_t seed) const;
  // The tokenizer of ADDP and MAGE is one run.
  std::string stage_folder(uint64_t seed, const SystemKind& system, const std::string& stage) const;
  std::string system_folder(uint64_t seed, const SystemKind& system) const;  // the last stage's
  std::string task_folder(uint64_t seed, const SystemKind& system, const std::string& task) const;
  int64_t task_steps(const std::string& stage) const;

  CompareOptions options;
  Config config;
  std::vector<SystemKind> systems;
  bool in_seconds = false;
  double budget = 0;  // steps or seconds
};

// Steps of each stage of each system, and factors on the learning rates of the preset.
struct Schedule {
  std::map<std::string, std::map<std::string, int64_t>> steps;  // system -> stage -> steps
  std::map<std::string, double> rate_factors;                   // stage -> factor; 1 where there is none
  std::map<std::string, double> step_seconds;                   // stage -> seconds, of a budget in seconds

  double rate_factor(const std::string& stage) const;
};

// Shares out the budget. ADDP's stages are in the preset's proportions; its predictor alone has what it has there. MAGE
// has ADDP's tokenizer and spends all the rest on its transformer; the others' stages are in the preset's proportions.
// step_seconds: what a step of each stage takes; empty for a budget in steps. Throws Error(usage) when a stage would
// get no step.
Schedule share_out(const Comparison& comparison, const std::map<std::string, double>& step_seconds);

// A schedule as a file, so that the same comparison, or a part of it, can be run on another machine, where a budget in
// seconds would give other steps and a sweep might find other rates. Every comparison has its own in plan.json,
// to which `addp ablate` and further systems in the same folder add theirs.
//   {"steps": {SYSTEM: {STAGE: N}}, "learning_rate_factors": {STAGE: FACTOR}}
// Throws Error(data) when there is a malformed file already.
void add_to_plan(const std::string& file, const Schedule& schedule);
// Throws Error(data) when the file is malformed, Error(usage) when a system or stage of the comparison is not in it.
Schedule read_plan(const std::string& file, const Comparison& comparison);

// Commands, in order. Of the budget in seconds: a few steps of each stage; its results; of the sweep: each stage with
// half, once and twice its learning rate; the factors that were best; then everything else.
std::vector<Job> calibration_jobs(const Comparison& comparison);
std::map<std::string, double> measured_step_seconds(const Comparison& comparison);
std::vector<Job> sweep_jobs(const Comparison& comparison, const Schedule& schedule);
std::map<std::string, double> best_rate_factors(const Comparison& comparison);
std::vector<Job> comparison_jobs(const Comparison& comparison, const Schedule& schedule);

// What a command looks at: a trained run, whose training is the job `needs`.
struct Subject {
  std::string name, title, kind;  // "seed1.addp", "seed 1, ADDP", "addp"
  std::string run, needs;
  uint64_t seed = 1;
  bool random_weights = false;
};
// A job of the subject without a command yet: seed1.addp.TASK.
Job task_job(const Subject& subject, const std::string& task, const std::string& title, double cost);
Job features_job(const Comparison& comparison, const Subject& subject, const std::string& command);  // probe | knn
// FID and the rest, by the judge; steps: of sampling, 0: the configuration's; then the figures go to `out`.
Job quality_job(const Comparison& comparison, const Subject& subject, int64_t steps = 0, const std::string& out = "");
std::vector<Job> judge_jobs(const Comparison& comparison);  // trains the judge, unless there is one

// A command that trains. rate_factor: on the configuration's learning rate.
struct Training {
  std::string stage, run;
  int64_t steps = 0;
  uint64_t seed = 1;
  double rate_factor = 1;
  std::vector<std::string> extra;  // --tokenizer RUN, ...
};
// Warm-up and the discriminator's start keep their places within shorter training.
std::vector<std::string> train_arguments(const Comparison& comparison, const Training& training);
double guessed_seconds(const std::string& stage, int64_t steps);

// Seconds that a training run's steps took, over all its interruptions.
double training_seconds(const std::string& run);
// What a step of a short run took whose every step was logged: the mean of typical ones. 0 when there are too few.
double step_seconds(const std::string& run);
// The mean without the first few, which find no memory to reuse, and without the slowest tenth of the rest, during
// which the machine did something else. 0 when nothing is left.
double typical_duration(std::vector<double> durations);

// Trainable numbers of the network that a stage trains, without a discriminator.
int64_t network_parameters(const Config& config, const std::string& stage);

}  // namespace addp
