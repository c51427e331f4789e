// Every variant trains ADDP's last stage on the same tokenizer and predictor, with one switch of the objective turned.
#include "examples/cmd_ablate.h"

#include <cstdio>

#include "examples/child.h"
#include "examples/comparison_table.h"
#include "examples/program.h"
#include "examples/run_config.h"

namespace addp {
namespace {

struct Variant {
  const char *key, *title, *assignment;
};
constexpr Variant kVariants[] = {
    {"hard-targets", "target: the image's codes, not the predictor's distribution",
     "objective.predicted_targets=false"},
    {"no-reliable", "no reliable tokens in the decoder", "objective.reliable_tokens=false"},
    {"hard-unreliable", "unreliable embedding of the likeliest code, not the mean", "objective.soft_unreliable=false"}};
constexpr int64_t kSamplingSteps[] = {1, 4, 10, 20, 50};

CompareOptions ablation_options(CompareOptions options) {
  options.systems = {"addp"};
  options.tasks = {"probe", "fid"};
  return options;
}

Subject method(const Comparison& comparison, uint64_t seed) {
  const std::string name = concat_text("seed", seed, ".addp");
  return {name,           concat_text("seed ", seed, ", ADDP"),
          "addp",         comparison.system_folder(seed, system_kind("addp")),
          name + ".addp", seed};
}

Subject variant_subject(const Comparison& comparison, uint64_t seed, const Variant& variant) {
  const std::string key = concat_text("addp-", variant.key), name = concat_text("seed", seed, ".", key);
  return {name,
          concat_text("seed ", seed, ", ", variant.title),
          key,
          comparison.seed_folder(seed) + "/" + key + "/addp",
          name + ".addp",
          seed};
}

Job variant_training(const Comparison& comparison, const Schedule& schedule, const Subject& subject,
                     const Variant& variant) {
  const SystemKind& addp = system_kind("addp");
  const int64_t steps = schedule.steps.at("addp").at("addp");
  const auto run_of = [&](const char* stage) { return comparison.stage_folder(subject.seed, addp, stage); };
  Job job = task_job(subject, "addp", "training", guessed_seconds("addp", steps));
  const std::string seed = concat_text("seed", subject.seed);
  job.needs = {seed + ".vqgan", seed + ".addp.predictor"};
  job.arguments = train_arguments(
      comparison, {"addp",
                   subject.run,
                   steps,
                   subject.seed,
                   schedule.rate_factor("addp"),
                   {"--tokenizer", run_of("vqgan"), "--predictor", run_of("predictor"), "--set", variant.assignment}});
  return job;
}

std::string steps_folder(const Comparison& comparison, uint64_t seed, int64_t steps) {
  return concat_text(comparison.seed_folder(seed), "/addp/sampled-", steps);
}

std::vector<Job> ablation_jobs(const Comparison& comparison, const Schedule& schedule) {
  std::vector<Job> jobs = comparison_jobs(comparison, schedule);
  for (const uint64_t seed : comparison.seeds()) {
    for (const int64_t steps : kSamplingSteps)
      jobs.push_back(quality_job(comparison, method(comparison, seed), steps, steps_folder(comparison, seed, steps)));
    for (const Variant& variant : kVariants) {
      const Subject subject = variant_subject(comparison, seed, variant);
      jobs.push_back(variant_training(comparison, schedule, subject, variant));
      jobs.push_back(features_job(comparison, subject, "probe"));
      jobs.push_back(quality_job(comparison, subject));
    }
  }
  return jobs;
}

void read_variant(const Subject& subject, const JobRunner& runner, Row& row) {
  if (runner.is_done(subject.name + ".probe")) {
    for (const auto& [key, end] : {std::pair<std::string, std::string>{"probe_grid", "... grid"},
                                   {"probe_mean", "... mean over patch tokens"}}) {
      for (const double value : figure_of_run(subject.run, "probe", end)) row.values[key].push_back(value);
    }
  }
  if (runner.is_done(subject.name + ".fid")) read_quality(subject.run, row);
}

Table objective_table(const Comparison& comparison, const Schedule& schedule, const JobRunner& runner) {
  Table table;
  table.title = "Ablations of the objective", table.corner = "training";
  table.columns = {{"probe_grid", "linear probe, grid, %"}, {"probe_mean", "linear probe, mean, %"}};
  append_quality_columns(table);
  for (const uint64_t seed : comparison.seeds()) {
    read_variant(method(comparison, seed), runner, table.row("method", "the method"));
    for (const Variant& variant : kVariants)
      read_variant(variant_subject(comparison, seed, variant), runner, table.row(variant.key, variant.title));
  }
  table.notes = common_notes(comparison);
  std::string steps;
  for (const std::string& stage : system_kind("addp").stages)
    steps += concat_text(steps.empty() ? "" : ", ", steps_text(schedule, "addp", stage));
  table.notes.push_back(steps + "; the tokenizer and the predictor of a seed are the same in all rows.");
  for (const std::string& failure : runner.failures()) table.notes.push_back("failed: " + failure);
  return table;
}

Table steps_table(const Comparison& comparison, const JobRunner& runner) {
  Table table;
  table.title = "Number of sampling steps", table.corner = "steps";
  append_quality_columns(table);
  table.columns.push_back({"draw", "ms/image", 1});
  for (const int64_t steps : kSamplingSteps) {
    Row& row = table.row(std::to_string(steps), std::to_string(steps));
    for (const uint64_t seed : comparison.seeds()) {
      if (runner.is_done(concat_text("seed", seed, ".addp.fid-", steps)))
        read_quality(steps_folder(comparison, seed, steps), row);
    }
  }
  table.notes = {"The method's runs of the table above, sampled with so many steps."};
  return table;
}

}  // namespace

int cmd_ablate(const CompareOptions& options, const std::vector<std::string>& arguments) {
  const auto write = [](const Comparison& comparison, const Schedule& schedule, const JobRunner& runner) {
    write_tables(comparison.options.run, "ablate",
                 {objective_table(comparison, schedule, runner), steps_table(comparison, runner)}, "ablate.html",
                 [](Report&) {});
  };
  return run_comparison(ablation_options(options), arguments, ablation_jobs, write);
}

}  // namespace addp
