// The training loop that all stages share: data, run folder, progress, checkpoints, signals, report.
#include "examples/cmd_train.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

#include "data/image.h"
#include "data/loader.h"
#include "data/subset.h"
#include "examples/batches.h"
#include "examples/chart.h"
#include "examples/cmd_report.h"
#include "examples/encoder_of_run.h"
#include "examples/profile_report.h"
#include "examples/program.h"
#include "examples/progress.h"
#include "examples/results.h"
#include "examples/run_config.h"
#include "examples/run_folder.h"
#include "examples/signals.h"
#include "examples/stage.h"
#include "tensor/files.h"
#include "tensor/parallel.h"
#include "tensor/profile.h"
#include "tensor/safetensors.h"

namespace addp {
namespace {

const StageConfig& stage_config(const Config& config, const std::string& stage) {
  return config.*stage_kind(stage).recipe;
}

// Means of the scalars since the last log line.
class RunningMeans {
 public:
  void add(const Scalars& values) {
    if (sums_.empty()) {
      sums_ = values;
    } else {
      for (size_t i = 0; i < values.size(); ++i) sums_[i].second += values[i].second;
    }
    ++count_;
  }
  Scalars take() {
    Scalars means = std::move(sums_);
    for (auto& [name, value] : means) value /= count_;
    sums_.clear();
    count_ = 0;
    return means;
  }

 private:
  Scalars sums_;
  int count_ = 0;
};

[[noreturn]] void fail_non_finite(int64_t step, const std::string& what, const std::string& run) {
  const std::vector<int64_t> saved = checkpoint_steps(run);
  fail(ErrorKind::non_finite, "step ", step, ": ", what, ". ",
       saved.empty() ? std::string("No checkpoint was saved yet.")
                     : concat_text("The checkpoint of step ", saved.back(), " is kept."),
       " Try a lower --lr, a longer warm-up, or a smaller clip_norm; for data, `addp data check`.");
}

int64_t image_size(const RunConfig& run) {
  return stage_kind(run.stage).is_dense ? run.config.dense.image_size : run.config.image_size;
}

std::shared_ptr<const Dataset> training_data(const RunConfig& run) {
  auto data = open_training_data(run.data, image_size(run), run.limit);
  return run.stage == "finetune" ? balanced_subset(std::move(data), run.config.finetune.labels, run.seed) : data;
}

// What a run reads, opened before its folder is made: a missing tokenizer or data set leaves nothing behind.
struct Inputs {
  Inputs(const TrainOptions& options, const RunConfig& run)
      : data(training_data(run)),
        stage(stage_kind(options.stage).make(run.config, options, *data)),
        test_batch(test_images(run.data, 32, image_size(run))) {}
  std::shared_ptr<const Dataset> data;
  std::unique_ptr<Stage> stage;
  Batch test_batch;
};

// One run: everything that lives as long as the loop.
class Training {
 public:
  Training(const TrainOptions& options, const RunConfig& run_config, Inputs inputs, RunFolder& folder)
      : options_(options),
        run_config_(run_config),
        recipe_(stage_config(run_config.config, options.stage)),
        folder_(folder),
        stage_(std::move(inputs.stage)),
        data_(std::move(inputs.data)),
        test_batch_(std::move(inputs.test_batch)) {}

  // Returns false when a signal stopped it early.
  bool run() {
    const int64_t start = restore();
    Loader loader(data_, loader_options(), start);
    Progress progress(options_.stage, start, recipe_.steps);
    RunningMeans means;
    const Rng rng = Rng(run_config_.seed).fork("train " + options_.stage);
    for (int64_t step = start; step < recipe_.steps; ++step) {
      Rng step_rng = rng.fork(static_cast<uint64_t>(step));
      const auto [values, images] = whole_step(loader, step, step_rng, step >= start + kWarmUp);
      means.add(values);
      progress.update(step + 1, values, images);
      const bool last = step + 1 == recipe_.steps;
      if (last || (step + 1) % options_.log_every == 0) log(step + 1, means.take(), progress);
      if (last || (step + 1) % sample_every() == 0) pictures(step + 1);
      const bool stop = stop_requested();
      if (last || stop || (step + 1) % options_.save_every == 0 || take_save_request()) save(step + 1);
      if (stop && !last) return false;
    }
    return true;
  }

  // On stdout and in the run folder.
  void report_profile() {
    if (profile_.steps == 0) return;
    const auto bytes = [](const StateDict& state) {
      int64_t sum = 0;
      for (const auto& [name, tensor] : state) sum += tensor.bytes();
      return sum;
    };
    const int64_t side = image_size(run_config_);
    const auto kinds =
        memory_kinds(profile_.memory, {bytes(stage_->weights()), bytes(stage_->frozen_weights()),
                                       bytes(stage_->optimizer_state()), recipe_.batch * (3 * side * side * 4 + 8)});
    std::printf("%s\n", profile_text(profile_, kinds).c_str());
    write_file_atomically(folder_.file("profile.json"), profile_json(profile_, kinds));
  }

  // Figures on the test split, of stages that have some.
  Figures evaluate() { return stage_->evaluate(*open_dataset(run_config_.data, Split::test, image_size(run_config_))); }

 private:
  // The first steps find no memory to reuse: a profile leaves them out.
  static constexpr int64_t kWarmUp = 2;

  // A step and the wait for its data. Returns its figures and the number of images.
  std::pair<Scalars, int64_t> whole_step(Loader& loader, int64_t step, Rng& rng, bool is_warm) {
    const ProfiledStep profiled(options_.profile && is_warm ? &profile_ : nullptr);
    const auto begin = std::chrono::steady_clock::now();
    const Batch batch = next_batch(loader);
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
    if (current_profile) current_profile->add(Phase::data, "wait for a batch", waited.count());
    return {finite_step(batch, step, rng), batch.images.dim(0)};
  }

  Batch next_batch(Loader& loader) const {
    try {
      return loader.next();
    } catch (const Error& error) {
      fail(error.kind(), error.what(), ". `addp data check ", run_config_.data, "` names every file like this.");
    }
  }

  // A step whose loss, gradients and figures are all finite.
  Scalars finite_step(const Batch& batch, int64_t step, Rng& rng) {
    Scalars values;
    try {
      values = stage_->step(batch, step, rng);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::non_finite) throw;
      fail_non_finite(step + 1, error.what(), folder_.path());
    }
    for (const auto& [name, value] : values) {
      if (!std::isfinite(value)) fail_non_finite(step + 1, concat_text("'", name, "' is ", value), folder_.path());
    }
    return values;
  }

  LoaderOptions loader_options() const {
    LoaderOptions options;
    options.batch_size = recipe_.batch;
    options.image_size = image_size(run_config_);
    options.seed = run_config_.seed;
    options.augmentation.flip = recipe_.flip;
    options.augmentation.random_crop = recipe_.min_crop < 1;
    options.augmentation.min_scale = recipe_.min_crop;
    options.augmentation.erasing = recipe_.erasing;
    return options;
  }

  int64_t sample_every() const {
    return options_.sample_every > 0 ? options_.sample_every : std::max<int64_t>(1, recipe_.steps / 4);
  }

  int64_t restore() {
    if (!folder_.resumed_step()) return 0;
    const std::string from = checkpoint_folder(folder_.path(), *folder_.resumed_step());
    stage_->load(read_safetensors(from + "/weights.safetensors").tensors,
                 read_safetensors(from + "/optimizer.safetensors").tensors);
    return *folder_.resumed_step();
  }

  void log(int64_t step, Scalars values, const Progress& progress) {
    values.emplace_back("images/s", progress.images_per_second());
    folder_.scalars({step, values});
    folder_.log(progress.text());
  }

  void pictures(int64_t step) {
    for (const Picture& picture : stage_->pictures(test_batch_)) folder_.sample(picture.name, step, picture.png);
  }

  void save(int64_t step) {
    folder_.save_checkpoint(step, [&](const std::string& to) {
      const std::map<std::string, std::string> metadata = {{"format", "addp"},
                                                           {"stage", options_.stage},
                                                           {"preset", run_config_.config.preset},
                                                           {"step", std::to_string(step)},
                                                           {"pixel_range", "0,1"}};
      write_safetensors(to + "/weights.safetensors", stage_->weights(), metadata);
      const StateDict averages = stage_->averaged_weights();
      if (!averages.empty()) write_safetensors(to + "/ema.safetensors", averages, metadata);
      write_safetensors(to + "/optimizer.safetensors", stage_->optimizer_state());
    });
  }

  const TrainOptions& options_;
  const RunConfig& run_config_;
  const StageConfig& recipe_;
  RunFolder& folder_;
  std::unique_ptr<Stage> stage_;
  std::shared_ptr<const Dataset> data_;
  Batch test_batch_;
  Profile profile_;
};

// A resumed run goes on with exactly the configuration it was started with. recompute_mlp may differ: weights do not
// depend on it, and runs that are older than it have none.
void check_same_run(const RunFolder& folder, const RunConfig& run) {
  if (!folder.resumed_step()) return;
  RunConfig old = read_run_config(folder.path());
  old.config.predictor.recompute_mlp = run.config.predictor.recompute_mlp;
  old.config.model.recompute_mlp = run.config.model.recompute_mlp;
  check_as(ErrorKind::checkpoint, old.stage == run.stage, folder.path(), ": holds a run of stage ", old.stage, ", not ",
           run.stage);
  check_as(ErrorKind::checkpoint, to_json(old) == to_json(run), folder.path(),
           ": was started with another configuration (", differences(old, run),
           "); repeat the options it was started with, or use another --run");
}

// curves.png: the loss over the steps.
void write_curve(const RunFolder& folder) {
  ChartOptions options;
  options.title = "loss";
  options.smoothing = 0.8;
  const Bitmap bitmap = chart_bitmap({metric_series(read_metrics(folder.file("metrics.jsonl")), "loss")}, options);
  write_png(folder.file("curves.png"), {bitmap.height, bitmap.width, 3, bitmap.rgb});
}

// The configuration of a recognition stage is the encoder's, so that sizes fit.
RunConfig resolve_run(const TrainOptions& options) {
  const bool needs_encoder = stage_kind(options.stage).is_recognition;
  check_as(ErrorKind::usage, needs_encoder != options.encoder.empty(), "train ", options.stage,
           needs_encoder ? ": --encoder RUN is missing (the run folder of `addp train addp`; none: random weights)"
                         : ": takes no --encoder");
  std::optional<Config> start;
  if (needs_encoder && options.encoder != kNoEncoder) start = config_of_encoder(options.encoder);
  return {resolve_config(options.config, options.stage, start),
          options.stage,
          !options.data.data.empty()           ? options.data.data
          : stage_kind(options.stage).is_dense ? "scenes"
                                               : "fashion-mnist",
          options.tokenizer,
          options.predictor,
          options.common.seed,
          options.data.limit,
          options.encoder};
}

}  // namespace

int cmd_train(const TrainOptions& options, const std::vector<std::string>& arguments) {
  apply(options.common);
  install_signal_handlers();
  const ExistingRun existing = options.resume      ? ExistingRun::resume
                               : options.overwrite ? ExistingRun::overwrite
                                                   : ExistingRun::refuse;
  const RunConfig run = resolve_run(options);
  Inputs inputs(options, run);
  RunFolder folder(options.run, existing, static_cast<int>(options.keep));
  check_same_run(folder, run);
  folder.write_config(to_json(run));

  const StageConfig& recipe = stage_config(run.config, options.stage);
  const std::string summary =
      concat_text("train ", options.stage, ": preset ", run.config.preset, ", data ", run.data, ", ", recipe.steps,
                  " steps of ", recipe.batch, " images, learning rate ", recipe.learning_rate(), " (base ",
                  recipe.base_lr, " x batch / 256), seed ", run.seed, ", ", num_threads(), " threads");
  std::fprintf(stderr, "%s\n", summary.c_str());
  folder.log(summary);

  Training training(options, run, std::move(inputs), folder);
  const auto begin = std::chrono::steady_clock::now();
  if (!training.run()) {
    std::fprintf(stderr, "\nStopped and saved. To go on:\n  %s\n", resume_command(arguments).c_str());
    return stop_exit_code();
  }
  if (!folder.resumed_step()) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    save_figures(folder.path(), "train",
                 {{"training time", format_duration(seconds)},
                  {"peak memory", concat_text(std::lround(peak_memory_mib()), " MiB")}});
  }
  training.report_profile();
  const Figures figures = training.evaluate();
  if (!figures.empty()) save_figures(folder.path(), "test", figures);
  for (const auto& [name, value] : figures) {
    std::printf("%s: %s\n", name.c_str(), value.c_str());
    folder.log(name + ": " + value);
  }
  write_curve(folder);
  write_report(folder.path());
  std::printf("%s\n", folder.file("report.html").c_str());
  return 0;
}

}  // namespace addp
