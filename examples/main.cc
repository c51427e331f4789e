// addp: the program. Parses the command line into the structs of options.h and calls the subcommand.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "examples/child.h"
#include "examples/cmd_ablate.h"
#include "examples/cmd_compare.h"
#include "examples/cmd_data_check.h"
#include "examples/cmd_doctor.h"
#include "examples/cmd_evaluate.h"
#include "examples/cmd_gradcheck.h"
#include "examples/cmd_inspect.h"
#include "examples/cmd_knn.h"
#include "examples/cmd_parity.h"
#include "examples/cmd_probe.h"
#include "examples/cmd_reconstruct.h"
#include "examples/cmd_report.h"
#include "examples/cmd_sample.h"
#include "examples/cmd_train.h"
#include "examples/options.h"
#include "examples/program.h"
#include "examples/stage.h"
#include "examples/suggest.h"

using namespace addp;

namespace {

void add_common(CLI::App* app, CommonOptions& o) {
  app->add_option("--device", o.device,
                  "cpu, cuda (a GPU; build/cuda/addp), or emulated (the CUDA kernels without a GPU, slow: for tests)")
      ->check(CLI::IsMember({"cpu", "cuda", "emulated"}))
      ->capture_default_str();
  app->add_option("--matmul", o.matmul,
                  "how a GPU multiplies matrices: f32, or on tensor cores, with rounded inputs, tf32 or bf16")
      ->check(CLI::IsMember({"f32", "tf32", "bf16"}))
      ->capture_default_str();
  app->add_option("--threads", o.threads, "threads; 0: ADDP_THREADS, else all cores")->check(CLI::Range(0, 256));
  app->add_option("--seed", o.seed, "every random number follows from it")->capture_default_str();
}

constexpr const char* kDataHelp =
    "fashion-mnist, shapes, scenes, or a folder (IDX, CIFAR, or one sub-folder per class)";

// Of commands that use a trained run.
void add_run_data(CLI::App* app, DataOptions& o) {
  o.data.clear();
  app->add_option("--data", o.data, std::string(kDataHelp) + "; default: the run's");
}

void add_train(CLI::App& app, TrainOptions& o) {
  CLI::App* train =
      app.add_subcommand("train", "train one stage of ADDP, a neighbour it is compared with, or a task on an encoder");
  train->add_option("stage", o.stage, stage_help())->required()->check(CLI::IsMember(stage_names()));
  train->add_option("--run", o.run, "run folder: configuration, log, curves, samples, checkpoints")->required();
  train->add_option("--preset", o.config.preset, "sizes and recipe; with --encoder RUN that run's count")
      ->check(CLI::IsMember({"tiny", "demo", "small", "base", "large"}))
      ->capture_default_str();
  train->add_option("--config", o.config.file, "JSON file of configuration fields, over the preset");
  train->add_option("--set", o.config.set,
                    "name=value, over everything (repeatable; all names are in the run folder's config.json)");
  o.data.data.clear();
  train->add_option("--data", o.data.data,
                    std::string(kDataHelp) + "; default: fashion-mnist, for segment and detect scenes");
  train->add_option("--limit", o.data.limit, "use only the first N training images")->check(CLI::NonNegativeNumber);
  train->add_option("--tokenizer", o.tokenizer,
                    "run folder of the VQGAN (predictor, addp, gpt; gpt also takes a vit-vqgan)");
  train->add_option("--predictor", o.predictor, "run folder of the token predictor (addp)");
  train->add_option("--encoder", o.encoder,
                    "run folder of a pre-trained encoder (addp), or none: random weights (finetune, segment, detect)");
  train->add_option_function<std::string>(
      "--labels", [&o](const std::string& v) { o.config.set.push_back("finetune.labels=" + v); },
      "finetune: percent of the labels, e.g. 1, 10 or 100; short for --set finetune.labels=PERCENT");
  train->add_option("--lpips", o.lpips,
                    "safetensors with VGG16 and LPIPS weights (tokenizers); without: L1 + GAN only");
  // The fields that people change most have flags of their own.
  const auto shorthand = [&](const char* flag, const char* field) {
    train->add_option_function<std::string>(
        flag, [&o, field](const std::string& v) { o.config.stage_set.push_back(std::string(field) + "=" + v); },
        std::string("short for --set train_STAGE.") + field + "=VALUE");
  };
  shorthand("--steps", "steps");
  shorthand("--batch", "batch");
  shorthand("--lr", "base_lr");
  auto* resume = train->add_flag("--resume", o.resume, "continue from the newest complete checkpoint, or start");
  train->add_flag("--overwrite", o.overwrite, "empty the run folder first")->excludes(resume);
  train->add_flag("--profile", o.profile, "at the end, where time and memory of a step went; also in profile.json");
  train->add_option("--log-every", o.log_every, "steps between log lines")->check(CLI::PositiveNumber);
  train->add_option("--sample-every", o.sample_every, "steps between pictures; 0: four times a run");
  train->add_option("--save-every", o.save_every, "steps between checkpoints")->check(CLI::PositiveNumber);
  train->add_option("--keep", o.keep, "checkpoints kept")->check(CLI::PositiveNumber);
  add_common(train, o.common);
}

void add_sample(CLI::App& app, SampleOptions& o) {
  CLI::App* sample = app.add_subcommand("sample", "new images from a trained system");
  sample->add_option("--run", o.run, "run folder of `train addp`, or of another system that generates")->required();
  sample->add_option("--tokenizer", o.tokenizer, "VQGAN run folder; default: the one it was trained with");
  sample->add_option("--out", o.out, "folder for the pictures; default RUN/samples");
  sample->add_option("--count", o.count, "how many images")->check(CLI::Range(1, 100000))->capture_default_str();
  sample->add_option("--batch", o.batch, "images at a time")->check(CLI::Range(1, 4096))->capture_default_str();
  sample->add_option("--steps", o.steps, "sampling steps; 0: the configuration's")->check(CLI::NonNegativeNumber);
  sample->add_option("--temperature", o.temperature,
                     "of the choice of places, or of the codes in causal models; negative: the configuration's");
  sample
      ->add_option("--top-p", o.top_p,
                   "sample from the most likely codes that sum to P; 1: from all; default: the configuration's")
      ->check(CLI::Range(0.01, 1.0));
  sample->add_option("--top-k", o.top_k, "causal models: sample from the K most likely codes; 0: the configuration's")
      ->check(CLI::NonNegativeNumber);
  sample->add_option("--schedule", o.schedule, "cosine | linear")->check(CLI::IsMember({"cosine", "linear"}));
  sample->add_flag("--static-temperature", o.static_temperature, "do not anneal the choice temperature");
  sample->add_flag("--soft-end", o.soft_end, "as the official sampler: leave the last soft token in the final image");
  sample->add_option("--inpaint", o.inpaint, "keep this part of test images and sample the rest")
      ->check(CLI::IsMember({"left", "top", "border", "center"}));
  add_run_data(sample, o.data);
  add_common(sample, o.common);
}

void add_reconstruct(CLI::App& app, ReconstructOptions& o) {
  CLI::App* reconstruct = app.add_subcommand("reconstruct", "test images through a trained tokenizer and back");
  reconstruct->add_option("--run", o.run, "run folder of `train vqgan` or `train vit-vqgan`")->required();
  reconstruct->add_option("--out", o.out, "folder for the picture; default RUN/samples");
  reconstruct->add_option("--count", o.count, "how many images")->check(CLI::Range(1, 4096))->capture_default_str();
  add_run_data(reconstruct, o.data);
  add_common(reconstruct, o.common);
}

void add_evaluate(CLI::App& app, EvaluateOptions& o) {
  CLI::App* evaluate = app.add_subcommand(
      "evaluate", "FID, KID, precision and recall of generated images; PSNR, SSIM and rFID of reconstructions");
  auto* run = evaluate->add_option("--run", o.runs, "run folders of systems that generate, or of tokenizers");
  evaluate->add_option("--images", o.images, "a folder of images in their place")->excludes(run);
  evaluate->add_option("--features", o.features,
                       "feature network: a run folder of `train classifier`, or InceptionV3's weights (.pth or "
                       ".safetensors, as torch-fidelity and pytorch-fid have them)");
  evaluate->add_option("--count", o.count, "N images; 0: half of the test split, at most 2000")
      ->check(CLI::NonNegativeNumber);
  evaluate->add_option("--steps", o.steps, "sampling steps of ADDP and MAGE; 0: the configuration's")
      ->check(CLI::NonNegativeNumber);
  evaluate->add_option("--out", o.out, "folder for evaluate.json; default: the run's");
  evaluate->add_option("--batch", o.batch, "images at a time")->check(CLI::Range(1, 4096))->capture_default_str();
  evaluate->add_option("--data", o.data.data, std::string(kDataHelp) + "; default: the run's, or the classifier's");
  add_common(evaluate, o.common);
}

void add_probe(CLI::App& app, ProbeOptions& o) {
  CLI::App* probe =
      app.add_subcommand("probe", "linear classification on a system's frozen features, and on raw pixels");
  probe->add_option("--run", o.run, "run folder of a system that was trained")->required();
  probe->add_flag("--random-weights", o.random_weights, "features of the weights before training, as a control");
  probe->add_option("--train", o.train, "training images; 0: all")->check(CLI::NonNegativeNumber);
  probe->add_option("--test", o.test, "test images; 0: all")->check(CLI::NonNegativeNumber);
  probe->add_option("--steps", o.steps, "of training the classifier; 0: the configuration's")
      ->check(CLI::NonNegativeNumber);
  add_run_data(probe, o.data);
  add_common(probe, o.common);
}

void add_knn(CLI::App& app, KnnOptions& o) {
  CLI::App* knn = app.add_subcommand("knn", "k-nearest-neighbour classification on frozen features, and on raw pixels");
  knn->add_option("run", o.run, "run folder of a trained system (addp, predictor, ...)")->required();
  knn->add_option("--k", o.k, "neighbours that vote")->check(CLI::PositiveNumber)->capture_default_str();
  knn->add_option("--temperature", o.temperature, "of the votes' weights exp(cosine / T), as DINO; 0: equal votes")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  knn->add_flag("--random-weights", o.random_weights, "features of the weights before training, as a control");
  knn->add_option("--train", o.train, "training images; 0: all")->check(CLI::NonNegativeNumber);
  knn->add_option("--test", o.test, "test images; 0: all")->check(CLI::NonNegativeNumber);
  add_run_data(knn, o.data);
  add_common(knn, o.common);
}

// Of compare and ablate.
void add_comparison(CLI::App* app, CompareOptions& o) {
  app->add_option("--run", o.run, "folder of the whole comparison: one run folder a job, tables, report")->required();
  app->add_option("--preset", o.config.preset, "sizes and recipes")
      ->check(CLI::IsMember({"tiny", "demo", "small", "base", "large"}))
      ->capture_default_str();
  app->add_option("--config", o.config.file, "JSON file of configuration fields, over the preset");
  app->add_option("--set", o.config.set, "name=value, over everything, for every job (repeatable)");
  o.data.data.clear();
  app->add_option("--data", o.data.data,
                  std::string(kDataHelp) + "; default: fashion-mnist. Segmentation and detection: scenes");
  app->add_option("--limit", o.data.limit, "use only the first N training images")->check(CLI::NonNegativeNumber);
  app->add_option("--seeds", o.seeds, "repetitions, with --seed and those after it")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app->add_option("--jobs", o.jobs, "jobs at a time, which share the threads: several small ones use cores better")
      ->check(CLI::Range(1, kMostChildren))
      ->capture_default_str();
  app->add_option("--budget", o.budget,
                  "steps:N or seconds:N of training, for all stages of a system together; default: the preset's steps "
                  "for the three stages of ADDP");
  app->add_option("--plan", o.plan,
                  "plan.json of another comparison: its steps and learning rates, instead of --budget and --sweep");
  app->add_option("--train", o.train, "training images of probe and k-NN; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_option("--test", o.test, "test images of probe and k-NN; 0: all")->check(CLI::NonNegativeNumber);
  app->add_option("--images", o.images, "generated images that are judged, and as many real ones")
      ->check(CLI::Range(4, 1000000))
      ->capture_default_str();
  app->add_option("--features", o.features,
                  "what judges generated images, as `addp evaluate` takes it; default: a classifier is trained first");
  app->add_flag("--sweep", o.sweep, "first half, once and twice each learning rate, in a quarter of the steps");
  app->add_flag("--resume", o.resume, "go on where it was stopped, or start");
  add_common(app, o.common);
}

void add_compare(CLI::App& app, CompareOptions& o) {
  CLI::App* compare =
      app.add_subcommand("compare", "train ADDP and its neighbours with one budget, judge all, write one table");
  add_comparison(compare, o);
  compare
      ->add_option("--systems", o.systems, "addp, predictor, mage, vit-vqgan, igpt, supervised, random; default: all")
      ->delimiter(',');
  compare->add_option("--tasks", o.tasks, "probe, knn, finetune, segment, detect, sample, fid; default: all")
      ->delimiter(',');
  compare->add_option("--labels", o.labels, "percentages of the labels to fine-tune with; default: 1")->delimiter(',');
  compare
      ->add_option("--task-steps", o.task_steps, "of fine-tuning, segmentation and detection; 0: the configuration's")
      ->check(CLI::NonNegativeNumber);
}

void add_ablate(CLI::App& app, CompareOptions& o) {
  CLI::App* ablate = app.add_subcommand(
      "ablate", "the paper's ablations: ADDP with one part changed at a time, and its number of sampling steps");
  add_comparison(ablate, o);
}

// All long options that the chosen subcommand knows, for "did you mean".
std::vector<std::string> known_options(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* part : app.get_subcommands()) {
    for (const CLI::Option* option : part->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

std::vector<std::string> subcommand_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* part : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(part->get_name());
  return names;
}

int usage_error(const CLI::App& app, const CLI::ParseError& error) {
  std::string message = error.what();
  const std::vector<std::string> extra = app.remaining(true);
  // Without a known command CLI11 asks for one before it looks at the rest.
  const bool is_unknown = dynamic_cast<const CLI::ExtrasError*>(&error) || app.get_subcommands().empty();
  if (is_unknown && !extra.empty()) {
    const std::string name = extra.front().substr(0, extra.front().find('='));
    message = name.rfind("-", 0) == 0         ? unknown_name("option", name, known_options(app))
              : app.get_subcommands().empty() ? unknown_name("command", name, subcommand_names(app))
                                              : "unexpected argument '" + name + "'";
  }
  std::fprintf(stderr, "error: %s\n", message.c_str());
  std::fprintf(stderr, "Run `addp%s --help` for the options.\n",
               app.get_subcommands().empty() ? "" : (" " + app.get_subcommands().front()->get_name()).c_str());
  return static_cast<int>(ErrorKind::usage);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "addp: Alternating Denoising Diffusion Process, from pixels to pictures\n"
      "A first run: train vqgan, train predictor, train addp, sample, probe (see README.md, or `make demo`).");
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "help of every subcommand");
  TrainOptions train;
  SampleOptions sample;
  ReconstructOptions reconstruct;
  EvaluateOptions evaluate;
  ProbeOptions probe;
  KnnOptions knn;
  CompareOptions compare, ablate;
  CommonOptions common;
  DataOptions data;
  std::string path;
  add_train(app, train);
  add_sample(app, sample);
  add_reconstruct(app, reconstruct);
  add_evaluate(app, evaluate);
  add_probe(app, probe);
  add_knn(app, knn);
  add_compare(app, compare);
  add_ablate(app, ablate);
  CLI::App* report =
      app.add_subcommand("report", "one self-contained report.html over a run folder and those inside it");
  report->add_option("folder", path, "run folder")->required();
  CLI::App* inspect = app.add_subcommand("inspect", "what is in a weights file or checkpoint folder");
  inspect->add_option("file", path, "safetensors file or checkpoint folder")->required();
  CLI::App* gradcheck = app.add_subcommand("gradcheck", "float64 gradient check of every op and every tiny model");
  add_common(gradcheck, common);
  CLI::App* parity = app.add_subcommand("parity", "compare with the reference data of a folder");
  parity->add_option("folder", path, "folder of *_weights and *_expected safetensors files")->required();
  add_common(parity, common);
  CLI::App* data_command = app.add_subcommand("data", "work on data sets");
  data_command->require_subcommand(1);
  CLI::App* data_check = data_command->add_subcommand("check", "name every unreadable or odd file");
  data_check->add_option("data", data.data, "fashion-mnist, shapes, or a folder")->required();
  CLI::App* doctor = app.add_subcommand("doctor", "what this build and this machine can do");
  bool roofline = false;
  doctor->add_flag("--roofline", roofline, "also time the device's kernels against its peaks");

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error);
  }

  const std::vector<std::string> arguments(argv, argv + argc);
  return run_guarded([&]() -> int {
    if (app.got_subcommand("train")) return cmd_train(train, arguments);
    if (app.got_subcommand("sample")) return cmd_sample(sample);
    if (app.got_subcommand("reconstruct")) return cmd_reconstruct(reconstruct);
    if (app.got_subcommand("evaluate")) return cmd_evaluate(evaluate);
    if (app.got_subcommand("probe")) return cmd_probe(probe);
    if (app.got_subcommand("knn")) return cmd_knn(knn);
    if (app.got_subcommand("compare")) return cmd_compare(compare, arguments);
    if (app.got_subcommand("ablate")) return cmd_ablate(ablate, arguments);
    if (*report) return cmd_report(path);
    if (*inspect) return run_inspect(path);
    if (*gradcheck) return cmd_gradcheck(common);
    if (*parity) return run_parity(path, common);
    if (*data_check) return cmd_data_check(data);
    if (*doctor) return cmd_doctor(roofline);
    return static_cast<int>(ErrorKind::usage);
  });
}
