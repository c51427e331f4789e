#include "examples/comparison_table.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "examples/evaluate.h"
#include "examples/event_file.h"
#include "examples/progress.h"
#include "examples/results.h"
#include "tensor/files.h"
#include "tensor/parallel.h"

namespace addp {

namespace fs = std::filesystem;

namespace {

void append(std::vector<double>& values, const std::vector<double>& more) {
  values.insert(values.end(), more.begin(), more.end());
}

void append_columns(const Comparison& comparison, Table& table) {
  table.columns = {{"network", "network, M parameters"},
                   {"all", "with tokenizers, M"},
                   {"seconds", "training, s", 0},
                   {"probe_grid", "linear probe, grid, %"},
                   {"probe_mean", "linear probe, mean, %"},
                   {"knn_grid", "k-NN, grid, %"},
                   {"knn_mean", "k-NN, mean, %"}};
  for (const std::string& percent : comparison.options.labels)
    table.columns.push_back({"finetune_" + percent, concat_text("fine-tuned, ", percent, " % labels, %")});
  const std::vector<Column> more = {
      {"labels", "all labels, %"}, {"miou", "mIoU, %"}, {"ap", "AP, %"}, {"ap50", "AP50, %"}, {"ap75", "AP75, %"}};
  table.columns.insert(table.columns.end(), more.begin(), more.end());
  append_quality_columns(table);
  table.columns.push_back({"draw", "sampling, ms/image", 1});
}

// Figures of one system and one seed.
void read_system(const Comparison& comparison, uint64_t seed, const SystemKind& system, const JobRunner& runner,
                 Row& row) {
  const std::string run = comparison.system_folder(seed, system),
                    word = concat_text("seed", seed, ".", system.key, ".");
  const bool is_control = system.key == "random";
  const std::string suffix = is_control ? "_random" : "";
  const auto read = [&](const std::string& key, const std::string& job, const std::string& folder,
                        const std::string& command, const std::string& name, double scale = 1) {
    if (!runner.is_done(word + job)) return;
    for (const double value : figure_of_run(folder, command, name)) row.values[key].push_back(value * scale);
  };
  read("probe_grid", "probe", run, "probe" + suffix, "... grid");
  read("probe_mean", "probe", run, "probe" + suffix, "... mean over patch tokens");
  read("knn_grid", "knn", run, "knn" + suffix, "... grid");
  read("knn_mean", "knn", run, "knn" + suffix, "... mean over patch tokens");
  for (const std::string& percent : comparison.options.labels) {
    const std::string task = "finetune-" + percent;
    read("finetune_" + percent, task, comparison.task_folder(seed, system, task), "test", "test accuracy");
  }
  if (system.key == "supervised") read("labels", "finetune", run, "test", "test accuracy");
  read("miou", "segment", comparison.task_folder(seed, system, "segment"), "test", "test mIoU");
  const std::string boxes = comparison.task_folder(seed, system, "detect");
  read("ap", "detect", boxes, "test", "test AP");
  read("ap50", "detect", boxes, "test", "test AP50");
  read("ap75", "detect", boxes, "test", "test AP75");
  if (runner.is_done(word + "fid")) read_quality(run, row);
  else read("draw", "sample", run, "samples", "time per image", 1000);
}

// The controls without any network, from the first system that was probed.
void read_pixels(const Comparison& comparison, uint64_t seed, const JobRunner& runner, Table& table) {
  for (const auto& [command, key] : {std::pair<std::string, std::string>{"probe", "probe_grid"}, {"knn", "knn_grid"}}) {
    for (const SystemKind& system : comparison.systems) {
      if (!runner.is_done(concat_text("seed", seed, ".", system.key, ".", command))) continue;
      const std::string record = command + (system.key == "random" ? "_random" : "");
      append(table.row("pixels", "raw pixels").values[key],
             figure_of_run(comparison.system_folder(seed, system), record, "... on raw pixels"));
      break;
    }
  }
}

// What other test images would get in place of generated ones; the same for all systems.
void read_floor(const Comparison& comparison, const JobRunner& runner, Table& table) {
  for (const uint64_t seed : comparison.seeds()) {
    for (const SystemKind& system : comparison.systems) {
      if (!runner.is_done(concat_text("seed", seed, ".", system.key, ".fid"))) continue;
      const Evaluation evaluation = read_evaluation(comparison.system_folder(seed, system));
      Row& row = table.row("real", "other test images");
      for (const std::string key : {"fid", "kid", "score", "precision", "recall"})
        row.values[key] = {evaluation.value(key + "_floor")};
      table.notes.push_back(concat_text("FID and the other figures of generated images: N = ", evaluation.n,
                                        " against as many test images, feature network: ", evaluation.network, "."));
      return;
    }
  }
}

double seconds_of_system(const Comparison& comparison, uint64_t seed, const SystemKind& system) {
  double seconds = 0;
  for (const std::string& stage : system.stages)
    seconds += training_seconds(comparison.stage_folder(seed, system, stage));
  return seconds;
}

std::string steps_note(const SystemKind& system, const Schedule& schedule) {
  std::string text = system.title + ": " + system.note + ".";
  if (system.key == "random") return text;
  for (const std::string& stage : system.stages)
    text += (stage == system.stages.front() ? " " : ", ") + steps_text(schedule, system.key, stage);
  return text + ".";
}

std::string processor() {
  std::ifstream lines("/proc/cpuinfo");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

}  // namespace

std::string steps_text(const Schedule& schedule, const std::string& system, const std::string& stage) {
  std::string text = concat_text(schedule.steps.at(system).at(stage), " steps of ", stage);
  if (!schedule.rate_factors.empty()) text += concat_text(" (learning rate x", schedule.rate_factor(stage), ")");
  return text;
}

std::vector<double> figure_of_run(const std::string& run, const std::string& command, const std::string& name) {
  for (const auto& [there, figures] : read_figures(run)) {
    if (there != command) continue;
    for (const auto& [key, value] : figures) {
      if (name.starts_with("...") ? !key.ends_with(name.substr(4)) : key != name) continue;
      double number = 0;
      if (std::from_chars(value.data(), value.data() + value.size(), number).ec == std::errc()) return {number};
    }
  }
  return {};
}

void append_quality_columns(Table& table) {
  const std::vector<Column> columns = {
      {"fid", "FID"}, {"kid", "KID", 4}, {"score", "score"}, {"precision", "precision", 3}, {"recall", "recall", 3}};
  table.columns.insert(table.columns.end(), columns.begin(), columns.end());
}

void read_quality(const std::string& folder, Row& row) {
  const Evaluation evaluation = read_evaluation(folder);
  for (const std::string key : {"fid", "kid", "score", "precision", "recall"}) {
    const double value = evaluation.value(key);
    if (std::isfinite(value)) row.values[key].push_back(value);
  }
  row.values["draw"].push_back(1000 * evaluation.draw_seconds);
}

std::vector<std::string> common_notes(const Comparison& comparison) {
  const CompareOptions& o = comparison.options;
  std::string seeds;
  for (const uint64_t seed : comparison.seeds()) seeds += concat_text(seeds.empty() ? "" : ", ", seed);
  std::string set;
  for (const std::string& text : o.config.set) set += " --set " + text;
  const std::string budget =
      o.plan.empty() ? concat_text("budget ", comparison.budget, comparison.in_seconds ? " seconds" : " steps",
                                   " of training for all stages of a system")
                     : "steps and learning rates of " + o.plan;
  return {concat_text("data ", o.data.data, ", preset ", o.config.preset, set, "; seeds ", seeds, "; ", budget, "; ",
                      num_threads(), " threads of ", processor(),
                      o.jobs > 1 ? concat_text(", shared by ", o.jobs, " jobs") : "", "."),
          "Mean ± standard deviation of a sample over the seeds. Training seconds are those of the steps alone."};
}

Table comparison_table(const Comparison& comparison, const Schedule& schedule, const JobRunner& runner) {
  Table table;
  table.title = "Comparison", table.corner = "system";
  append_columns(comparison, table);
  for (const SystemKind& system : comparison.systems) {
    Row& row = table.row(system.key, system.title);
    const bool is_control = system.key == "random";
    double all = 0;
    for (const std::string& stage : system.stages)
      all += static_cast<double>(network_parameters(comparison.config, stage)) / 1e6;
    const double network =
        static_cast<double>(network_parameters(comparison.config, is_control ? "finetune" : system.stages.back())) /
        1e6;
    row.values["network"] = {network}, row.values["all"] = {is_control ? network : all};
    for (const uint64_t seed : comparison.seeds()) {
      const std::string last = concat_text("seed", seed, ".", system.trained_by(), ".", system.stages.back());
      if (!is_control && runner.is_done(last))
        row.values["seconds"].push_back(seconds_of_system(comparison, seed, system));
      read_system(comparison, seed, system, runner, row);
    }
  }
  for (const uint64_t seed : comparison.seeds()) read_pixels(comparison, seed, runner, table);
  table.drop_empty_columns();
  table.notes = common_notes(comparison);
  for (const SystemKind& system : comparison.systems) table.notes.push_back(steps_note(system, schedule));
  const CompareOptions& o = comparison.options;
  table.notes.push_back(concat_text("Probe and k-NN: ", o.train == 0 ? "all" : std::to_string(o.train),
                                    " training images, ", o.test == 0 ? "all" : std::to_string(o.test),
                                    " test images. Fine-tuning ", comparison.task_steps("finetune"),
                                    " steps, segmentation ", comparison.task_steps("segment"), ", detection ",
                                    comparison.task_steps("detect"), ", the last two on scenes."));
  read_floor(comparison, runner, table);
  for (const std::string& failure : runner.failures()) table.notes.push_back("failed: " + failure);
  return table;
}

void add_comparison_pictures(Report& report, const Comparison& comparison) {
  for (const uint64_t seed : comparison.seeds()) {
    bool has_heading = false;
    for (const SystemKind& system : comparison.systems) {
      const std::string file = comparison.system_folder(seed, system) + "/samples/samples.png";
      if (!system.generates || !fs::exists(file)) continue;
      if (!has_heading) report.add_section(concat_text("Samples, seed ", seed));
      has_heading = true;
      const std::string png = read_file(file);
      report.add_image(system.title, png, png_size(png).width < 400 ? 2 : 1);
    }
  }
}

void write_tables(const std::string& folder, const std::string& name, const std::vector<Table>& tables,
                  const std::string& html, const std::function<void(Report&)>& add_pictures) {
  const std::string title = "addp " + name;
  Report report(title);
  std::string text = "# " + title + "\n";
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const Table& table : tables) {
    text += "\n" + markdown(table);
    json.push_back(nlohmann::ordered_json::parse(json_text(table)));
    report.add_section(table.title);
    report.add_table(cells(table));
    std::string notes;
    for (const std::string& note : table.notes) notes += (notes.empty() ? "" : "\n\n") + note;
    report.add_text(notes);
  }
  add_pictures(report);
  write_file_atomically(folder + "/" + name + ".json", json.dump(2) + "\n");
  write_file_atomically(folder + "/" + name + ".md", text);
  report.write(folder + "/" + html);
}

}  // namespace addp
