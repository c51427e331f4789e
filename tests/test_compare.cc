// The comparison of systems: mean and spread, tables, the budget's shares, and the program: a whole small comparison,
// resumed after a kill, that repeats nothing, and what it refuses.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "examples/comparison.h"
#include "examples/comparison_table.h"
#include "examples/results.h"
#include "examples/summary.h"
#include "tests/drive.h"

namespace addp {
namespace {

using Json = nlohmann::json;

Words compare_tiny(const std::string& run) {
  return {"compare",  "--run",    run,       "--preset",     "tiny",   "--data", "shapes",
          "--budget", "steps:12", "--train", "100",          "--test", "50",     "--labels",
          "10,100",   "--seeds",  "1",       "--task-steps", "3",      "--set",  "train_probe.steps=20",
          "--images", "20"};
}

const Words kTwoSystems = {"--systems", "mage,random", "--tasks", "probe,finetune,sample,fid"};
// The notes name the jobs that share the machine; figures do not depend on them.
const Words kAtOnce = {"--jobs", "3"};

// The figures of a table that do not depend on the machine's speed.
Json figures(const std::string& run) {
  Json all = Json::parse(bytes_of(run + "/compare.json"));
  for (Json& row : all[0]["rows"]) {
    row["figures"].erase("seconds");
    row["figures"].erase("draw");
  }
  return all;
}

std::map<std::string, fs::file_time_type> records(const std::string& run) {
  std::map<std::string, fs::file_time_type> times;
  for (const auto& entry : fs::directory_iterator(run + "/jobs"))
    times[entry.path().filename().string()] = fs::last_write_time(entry.path());
  return times;
}

CompareOptions demo_options(const std::string& budget) {
  CompareOptions options;
  options.run = "runs/none";
  options.budget = budget;
  return options;
}

}  // namespace

TEST_CASE("summary: mean and sample deviation") {
  CHECK(spread_of({2, 4, 4, 4, 5, 5, 7, 9}).mean == doctest::Approx(5));
  CHECK(spread_of({2, 4, 4, 4, 5, 5, 7, 9}).deviation == doctest::Approx(std::sqrt(32.0 / 7)));
  CHECK(spread_of({3}).mean == 3);
  CHECK(std::isnan(spread_of({3}).deviation));
  CHECK(std::isnan(spread_of({}).mean));
  CHECK(spread_text({81, 82}, 2) == "81.50 ± 0.71");
  CHECK(spread_text({81.256}, 1) == "81.3");
  CHECK(spread_text({}, 1) == "-");
}

TEST_CASE("summary: a table as Markdown and as JSON; columns without a figure go") {
  Table table;
  table.title = "T", table.corner = "system", table.notes = {"a note"};
  table.columns = {{"a", "first", 1}, {"b", "second", 1}, {"c", "third", 1}};
  table.row("x", "X").values["a"] = {1, 2};
  table.row("y", "Y").values["b"] = {3};
  table.row("x", "X").values["c"] = {};
  table.drop_empty_columns();
  CHECK(markdown(table) ==
        "## T\n\n| system | first | second |\n|---|---:|---:|\n| X | 1.5 ± 0.7 | - |\n| Y | - | 3.0 |\n\n- a note\n");
  const Json json = Json::parse(json_text(table));
  CHECK(json["rows"][0]["figures"]["a"]["values"] == Json({1, 2}));
  CHECK(json["rows"][0]["figures"]["a"]["mean"] == 1.5);
  CHECK(json["rows"][1]["figures"]["b"]["deviation"].is_null());
}

TEST_CASE("compare: every system gets the whole budget, in steps or in seconds") {
  const Comparison in_steps(demo_options("steps:1000"));
  const Schedule steps = share_out(in_steps, {});
  for (const SystemKind& system : in_steps.systems) {
    INFO(system.key);
    if (system.key == "predictor") continue;  // a part of ADDP's
    int64_t sum = 0;
    for (const auto& [stage, count] : steps.steps.at(system.key)) sum += count;
    CHECK(std::abs(sum - 1000) <= 1);
  }
  CHECK(steps.steps.at("mage").at("vqgan") == steps.steps.at("addp").at("vqgan"));  // they share the tokenizer
  for (const std::string stage : {"vqgan", "predictor"})
    CHECK(steps.steps.at("predictor").at(stage) == steps.steps.at("addp").at(stage));
  CHECK(steps.steps.at("predictor").size() == 2);

  // So is MAGE's sweep the same with and without ADDP.
  CompareOptions mage_only = demo_options("steps:1000");
  mage_only.systems = {"mage"};
  const auto commands = [](const Comparison& comparison, const Schedule& schedule) {
    std::map<std::string, std::vector<std::string>> all;
    for (const Job& job : sweep_jobs(comparison, schedule)) all[job.name] = job.arguments;
    return all;
  };
  const auto whole = commands(in_steps, steps);
  const Comparison alone(mage_only);
  const auto few = commands(alone, share_out(alone, {}));
  CHECK(few.size() == 6);
  for (const auto& [name, arguments] : few) CHECK_MESSAGE(whole.at(name) == arguments, name);

  const std::map<std::string, double> unit = {{"vqgan", 0.1},     {"predictor", 0.05}, {"addp", 0.25},
                                              {"vit-vqgan", 0.2}, {"gpt", 0.02},       {"igpt", 0.5},
                                              {"finetune", 0.04}};
  const Comparison in_seconds(demo_options("seconds:120"));
  const Schedule timed = share_out(in_seconds, unit);
  for (const SystemKind& system : in_seconds.systems) {
    INFO(system.key);
    if (system.key == "predictor") continue;
    double sum = 0;
    for (const auto& [stage, count] : timed.steps.at(system.key)) sum += static_cast<double>(count) * unit.at(stage);
    CHECK(sum == doctest::Approx(120).epsilon(0.005));
  }
  CHECK(message_of(ErrorKind::usage, [&] { share_out(Comparison(demo_options("steps:1")), {}); }).find("--budget") !=
        std::string::npos);
}

TEST_CASE("compare: what a step takes leaves out the first steps and disturbed ones") {
  std::vector<double> durations(24, 0.5);
  durations[0] = 90, durations[3] = 7, durations[10] = 30, durations[20] = 40;
  CHECK(typical_duration(durations) == doctest::Approx(0.5));
  durations[12] = 0.5 + 18;  // one more than a tenth of 20
  CHECK(typical_duration(durations) == doctest::Approx(1.5));
  CHECK(typical_duration({1, 1, 1, 1}) == 0);
}

TEST_CASE("compare: the networks of the demo's preset are of comparable size") {
  const Config config = preset("demo");
  const int64_t addp = network_parameters(config, "addp");
  for (const std::string stage : {"predictor", "gpt", "igpt"}) {
    INFO(stage);
    const double ratio = static_cast<double>(network_parameters(config, stage)) / static_cast<double>(addp);
    CHECK(ratio > 0.8);
    CHECK(ratio < 1.25);
  }
}

TEST_CASE("program: compare trains and judges systems, and repeats nothing") {
  const ScratchFolder folder;
  const std::string run = folder / "compare";
  const Words command = compare_tiny(run) + kTwoSystems + kAtOnce;  // a job waits for one that it needs and that runs
  const Outcome outcome = run_well(command);
  CHECK(contains(outcome.err, "MAGE"));
  CHECK(contains(outcome.err, "left in all"));
  const Json table = figures(run)[0];
  REQUIRE(table["rows"].size() == 4);
  for (const std::string column : {"probe_grid", "probe_mean", "finetune_10", "finetune_100", "network"}) {
    INFO(column);
    CHECK(table["rows"][0]["figures"][column]["values"].size() == 1);
    CHECK(table["rows"][1]["figures"][column]["values"].size() == 1);
  }
  CHECK(table["rows"][2]["title"] == "raw pixels");
  CHECK(table["rows"][3]["title"] == "other test images");
  for (const std::string column : {"fid", "kid", "score", "precision", "recall"}) {
    INFO(column);
    CHECK(table["rows"][0]["figures"][column]["values"].size() == 1);
    CHECK(table["rows"][3]["figures"][column]["values"].size() == 1);
    CHECK(!table["rows"][1]["figures"].contains(column));
  }
  const std::string mage = run + "/seed1/mage/predictor";
  CHECK(table["rows"][0]["figures"]["probe_mean"]["values"][0] ==
        figure_of_run(mage, "probe", "... mean over patch tokens").at(0));
  for (const std::string percent : {"10", "100"}) {
    const std::string tuned = run + "/seed1/mage/task-finetune-" + percent;
    CHECK(table["rows"][0]["figures"]["finetune_" + percent]["values"] ==
          Json(figure_of_run(tuned, "test", "test accuracy")));
  }
  CHECK(contains(bytes_of(run + "/compare.md"), "| MAGE |"));
  CHECK(contains(bytes_of(run + "/report.html"), "data:image/png;base64,"));

  const auto before = records(run);
  const std::string text = bytes_of(run + "/compare.md");
  run_well(command + Words{"--resume"});
  CHECK(records(run) == before);
  CHECK(bytes_of(run + "/compare.md") == text);
  check_fails(2, command, {run, "--resume"});
  check_fails(2, command + Words{"--resume", "--limit", "50"}, {run, "other options", "--run"});
}

TEST_CASE("program: compare's columns of dense tasks and neighbours hold what those runs found") {
  const ScratchFolder folder;
  const std::string run = folder / "compare", mage = run + "/seed1/mage";
  run_well(compare_tiny(run) + Words{"--systems", "mage", "--tasks", "knn,segment,detect"});
  const Json figures_of_mage = figures(run)[0]["rows"][0]["figures"];
  const auto same = [&](const std::string& column, const std::string& where, const std::string& command,
                        const std::string& name) {
    INFO(column);
    CHECK(figures_of_mage[column]["values"] == Json(figure_of_run(mage + where, command, name)));
    CHECK(figures_of_mage[column]["values"].size() == 1);
  };
  same("knn_grid", "/predictor", "knn", "... grid"),
      same("knn_mean", "/predictor", "knn", "... mean over patch tokens");
  same("miou", "/task-segment", "test", "test mIoU");
  same("ap", "/task-detect", "test", "test AP"), same("ap50", "/task-detect", "test", "test AP50");
  same("ap75", "/task-detect", "test", "test AP75");
}

TEST_CASE("program: a sweep picks the rate of the least loss, and a budget in seconds is spent") {
  const ScratchFolder folder;
  const std::string run = folder / "run";
  const auto mean_loss = [&](const std::string& factor) {
    const auto points = curve(run + "/sweep/igpt-x" + factor);
    double sum = 0;
    const size_t count = (points.size() + 3) / 4;
    for (size_t i = points.size() - count; i < points.size(); ++i) sum += points[i].second;
    return sum / static_cast<double>(count);
  };
  const Words command = {"compare", "--preset", "tiny", "--data", "shapes", "--systems", "igpt", "--tasks",
                         "knn",     "--train",  "100",  "--test", "50",     "--seeds",   "1"};
  run_well(command + Words{"--run", run, "--budget", "seconds:2", "--sweep"});
  std::string best = "1";
  for (const std::string factor : {"0.5", "2"}) {
    if (mean_loss(factor) < mean_loss(best)) best = factor;
  }
  const Json table = figures(run)[0];
  const std::string notes = table["notes"].dump();
  CHECK_MESSAGE(contains(notes, "learning rate x" + best + ")"), notes);
  const double base = preset("tiny").train_igpt.base_lr * std::stod(best);
  CHECK(contains(bytes_of(run + "/seed1/igpt/igpt/config.json"), concat_text("\"train_igpt.base_lr\": \"", base)));
  // A machine that does other things meanwhile takes longer, one that did when a step was timed shorter.
  const double spent = Json::parse(bytes_of(run + "/compare.json"))[0]["rows"][0]["figures"]["seconds"]["mean"];
  CHECK(spent > 0.2);
  CHECK(spent < 20);

  // Elsewhere the plan repeats it, whatever a step takes there.
  const std::string again = folder / "again";
  run_well(command + Words{"--run", again, "--plan", run + "/plan.json"});
  CHECK(figures(again)[0]["rows"] == table["rows"]);
  CHECK(!fs::exists(again + "/sweep"));
  CHECK(bytes_of(again + "/plan.json") == bytes_of(run + "/plan.json"));
}

TEST_CASE("compare: a plan is read as it was written, and refused when it does not fit") {
  const ScratchFolder folder;
  const std::string file = folder / "plan.json";
  Schedule schedule = share_out(Comparison(demo_options("steps:1000")), {});
  schedule.rate_factors = {{"addp", 2}, {"gpt", 0.5}};
  for (const auto& [system, steps] : schedule.steps) add_to_plan(file, {{{system, steps}}, {}, {}});  // one by one
  add_to_plan(file, {{}, schedule.rate_factors, {}});
  CompareOptions options = demo_options("");
  options.plan = file;
  const Comparison comparison(options);
  CHECK(read_plan(file, comparison).steps == schedule.steps);
  CHECK(read_plan(file, comparison).rate_factors == schedule.rate_factors);

  const auto refusal = [&](ErrorKind kind, const std::string& text) {
    write_file_atomically(file, text);
    return message_of(kind, [&] { read_plan(file, comparison); });
  };
  CHECK(contains(refusal(ErrorKind::data, "{"), "plan.json: expected \"steps\""));
  CHECK(contains(refusal(ErrorKind::data, R"({"steps": [1]})"), "plan.json: expected \"steps\""));
  CHECK(contains(refusal(ErrorKind::data, R"({"steps": {}})"), "expected \"learning_rate_factors\""));
  const auto with_steps = [](const std::string& steps) {
    return "{\"steps\": " + steps + ", \"learning_rate_factors\": {}}";
  };
  CHECK(contains(refusal(ErrorKind::usage, with_steps("{}")), "no steps for addp"));
  CHECK(contains(refusal(ErrorKind::usage, with_steps(R"({"addp": {"vqgan": 5}})")), "addp's stage predictor"));
  for (const std::string steps : {"0", "-3", "1.5", "1e30", "18446744073709551615", "\"5\"", "null"}) {
    INFO(steps);
    CHECK(contains(refusal(ErrorKind::data, with_steps(R"({"addp": {"vqgan": )" + steps + "}}")), "addp.vqgan"));
  }
  nlohmann::json json = {{"steps", schedule.steps}};
  const auto with_factors = [&](const Json& factors) {
    json["learning_rate_factors"] = factors;
    return json.dump();
  };
  CHECK(contains(refusal(ErrorKind::data, with_factors({{"addp", 0}})), "addp: expected a factor"));
  CHECK(contains(refusal(ErrorKind::data, with_factors({{"addp", "2"}})), "addp: expected a factor"));
  CHECK(contains(refusal(ErrorKind::data, with_factors(Json::array({2}))), "learning_rate_factors"));
  CHECK(contains(refusal(ErrorKind::usage, with_factors({{"adp", 2}})), "adp"));

  options.sweep = true;
  CHECK(contains(message_of(ErrorKind::usage, [&] { Comparison{options}; }), "--sweep"));
  options.sweep = false, options.budget = "steps:5";
  CHECK(contains(message_of(ErrorKind::usage, [&] { Comparison{options}; }), "--budget"));
}

TEST_CASE("program: ablations stand on what the comparison in their folder has trained") {
  const ScratchFolder folder;
  const std::string run = folder / "run";
  const Words options = {"--run",    run,        "--preset", "tiny", "--data", "shapes",
                         "--budget", "steps:12", "--train",  "100",  "--test", "50",
                         "--seeds",  "1",        "--images", "20",   "--set",  "train_probe.steps=20",
                         "--sweep"};
  run_well(Words{"compare", "--systems", "mage,addp,predictor", "--tasks", "probe,fid"} + options);
  // ADDP's predictor is judged where it lies.
  const Json compared = figures(run)[0]["rows"];
  CHECK(compared[2]["title"] == "ADDP's predictor");
  CHECK(compared[2]["figures"]["probe_mean"]["values"] ==
        Json(figure_of_run(run + "/seed1/addp/predictor", "probe", "... mean over patch tokens")));
  CHECK(compared[2]["figures"]["fid"]["values"] != compared[0]["figures"]["fid"]["values"]);
  const Json timed = Json::parse(bytes_of(run + "/compare.json"))[0]["rows"];
  CHECK(timed[2]["figures"]["seconds"]["mean"].get<double>() < timed[1]["figures"]["seconds"]["mean"].get<double>());
  const auto before = records(run);
  run_well(Words{"ablate", "--resume"} + options);
  auto after = records(run);
  for (const auto& [file, time] : before) CHECK_MESSAGE(after.at(file) == time, file);

  const Json tables = Json::parse(bytes_of(run + "/ablate.json"));
  REQUIRE(tables.size() == 2);
  REQUIRE(tables[0]["rows"].size() == 4);
  std::set<std::string> different;
  for (const Json& row : tables[0]["rows"]) {
    CHECK(row["figures"]["probe_grid"]["values"].size() == 1);
    different.insert(row["figures"]["fid"]["values"].dump());
  }
  CHECK(different.size() == 4);
  // Each row trained with the one switch that its title names.
  const std::map<std::string, std::string> switches = {{"addp-hard-targets", "objective.predicted_targets"},
                                                       {"addp-no-reliable", "objective.reliable_tokens"},
                                                       {"addp-hard-unreliable", "objective.soft_unreliable"}};
  for (const auto& [variant, off] : switches) {
    const std::string config = bytes_of(run + "/seed1/" + variant + "/addp/config.json");
    for (const auto& [other, name] : switches)
      CHECK_MESSAGE(contains(config, "\"" + name + "\": \"" + (name == off ? "false" : "true")), variant, " ", name);
  }
  const std::vector<std::string> titles = {"the method", "target: ", "no reliable tokens", "unreliable embedding"};
  const std::vector<std::string> folders = {"addp", "addp-hard-targets", "addp-no-reliable", "addp-hard-unreliable"};
  for (size_t i = 0; i < titles.size(); ++i) {
    const Json& row = tables[0]["rows"][i];
    CHECK(row["title"].get<std::string>().starts_with(titles[i]));
    CHECK(row["figures"]["probe_mean"]["values"][0] ==
          figure_of_run(run + "/seed1/" + folders[i] + "/addp", "probe", "... mean over patch tokens").at(0));
  }
  REQUIRE(tables[1]["rows"].size() == 5);
  different.clear();
  for (const Json& row : tables[1]["rows"]) different.insert(row["figures"]["fid"]["values"].dump());
  CHECK(different.size() == 5);
  // The tiny preset samples with 4 steps.
  CHECK(tables[1]["rows"][1]["figures"]["fid"]["values"] == tables[0]["rows"][0]["figures"]["fid"]["values"]);
  CHECK(contains(bytes_of(run + "/ablate.md"), "| no reliable tokens in the decoder |"));
}

TEST_CASE("program: a comparison with several jobs at a time, killed at random moments, ends with the same table") {
  const ScratchFolder folder;
  const std::string whole = folder / "whole", run = folder / "run";
  run_well(compare_tiny(whole) + kTwoSystems);
  const Words command = Words{built("addp")} + compare_tiny(run) + kTwoSystems + kAtOnce + Words{"--resume"};
  int kills = 0;
  for (int i = 0; i < 4; ++i) {
    Process process(command);
    std::this_thread::sleep_for(std::chrono::milliseconds(kSanitized ? 3000 : 300 + 350 * i));
    process.send(SIGKILL);
    kills += process.wait().code == 128 + SIGKILL;
  }
  CHECK(kills > 0);
  const Outcome outcome = Process(command).wait();
  INFO(outcome.err);
  CHECK(outcome.code == 0);
  const Json expected = figures(whole)[0]["rows"], found = figures(run)[0]["rows"];
  CHECK(found == expected);
}

TEST_CASE("program: a comparison stops on a signal, saves, and says how to go on; a failed job is named") {
  const ScratchFolder folder;
  const std::string run = folder / "run";
  const Words long_one = {"compare",         "--run",   run, "--preset", "tiny",         "--data",
                          "shapes",          "--seeds", "1", "--budget", "steps:200000", "--systems",
                          "igpt,supervised", "--jobs",  "2"};
  const std::vector<std::string> trained = {run + "/seed1/igpt/igpt", run + "/seed1/supervised/finetune"};
  Process process(Words{built("addp")} + long_one);
  CHECK(wait_until([&] {
    return !process.running() ||
           std::all_of(trained.begin(), trained.end(), [](const std::string& r) { return !curve(r).empty(); });
  }));
  check_fails(2, long_one + Words{"--resume"}, {run, "another process"});
  process.send(SIGTERM);
  const Outcome stopped = process.wait();
  CHECK(stopped.code == 143);
  CHECK(contains(stopped.err, " --resume"));
  for (const std::string& both : trained) CHECK(fs::exists(newest(both)));

  const std::string broken = folder / "broken";
  const Words failing =
      compare_tiny(broken) + Words{"--systems", "igpt", "--tasks", "probe,sample", "--set", "train_igpt.base_lr=1e30"};
  const Outcome failed = run_addp(failing);
  CHECK(failed.code == 6);
  CHECK(contains(failed.err, "igpt"));
  CHECK(contains(bytes_of(broken + "/compare.md"), "failed: seed 1, iGPT: training, igpt: exit code 6"));
}

TEST_CASE("program: compare refuses what it cannot do, and leaves no folder behind") {
  const ScratchFolder folder;
  const std::string run = folder / "run";
  check_fails(2, {"compare", "--preset", "tiny"}, {"--run"});
  check_fails(2, compare_tiny(run) + Words{"--systems", "mague"}, {"mague", "did you mean mage?"});
  check_fails(2, compare_tiny(run) + Words{"--tasks", "prob"}, {"prob", "did you mean probe?"});
  check_fails(2, {"compare", "--run", run, "--budget", "hours:3"}, {"--budget", "hours:3", "steps:N"});
  check_fails(2, {"compare", "--run", run, "--budget", "steps:1"}, {"--budget", "no step"});
  check_fails(2, {"compare", "--run", run, "--labels", "0"}, {"--labels", "0"});
  check_fails(3, {"compare", "--run", run, "--plan", folder / "none.json"}, {folder / "none.json"});
  check_fails(2, {"compare", "--run", run, "--set", "train_adp.steps=3"}, {"train_adp.steps"});
  check_fails(3, {"compare", "--run", run, "--preset", "tiny", "--data", folder / "none"}, {folder / "none"});
  check_fails(2, compare_tiny(run) + Words{"--features", folder / "none"}, {"--features", folder / "none"});
  CHECK(!fs::exists(run));
  check_fails(2, compare_tiny(tiny_pipeline().addp) + Words{"--resume"}, {tiny_pipeline().addp, "no jobs/"});
}

TEST_CASE("program: an encoder that learned from labels can be probed and carry other tasks") {
  const ScratchFolder folder;
  const std::string run = folder / "labels";
  run_well({"train", "finetune", "--run", run, "--preset", "tiny", "--data", "shapes", "--encoder", "none", "--steps",
            "10"});
  run_well({"probe", "--run", run, "--train", "100", "--test", "50", "--steps", "20"});
  CHECK(figure_of_run(run, "probe", "linear probe on classifier features, mean over patch tokens").size() == 1);
  const Words some = {"knn", run, "--train", "200", "--test", "200"};
  run_well(some);
  run_well(some + Words{"--random-weights"});
  CHECK(figure_of_run(run, "knn", "... grid") != figure_of_run(run, "knn_random", "... grid"));
  const Words segment = {"train", "segment", "--preset", "tiny", "--steps", "1", "--encoder"};
  run_well(segment + Words{run, "--run", folder / "carried"});
  run_well(segment + Words{"none", "--run", folder / "scratch"});
  CHECK(curve(folder / "carried") != curve(folder / "scratch"));
}

}  // namespace addp
