// Creating, taking over and cleaning a run's folder; complete and incomplete checkpoints.
#include "examples/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <iterator>

namespace addp {
namespace fs = std::filesystem;
namespace {

constexpr const char* kConfig = "config.json";
constexpr const char* kLog = "log.txt";
constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kSamples = "samples";
constexpr const char* kCheckpoints = "checkpoints";
constexpr const char* kReport = "report.html";
constexpr const char* kProfile = "profile.json";
constexpr const char* kResults = "results.json";
constexpr const char* kEvaluation = "evaluate.json";
constexpr const char* kDone = "DONE";
constexpr std::string_view kEventsPrefix = "events.out.tfevents.";
constexpr std::string_view kStepPrefix = "step_";

std::string utc_time(const char* format) {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  ::gmtime_r(&now, &parts);
  char text[64];
  return std::string(text, std::strftime(text, sizeof(text), format, &parts));
}

// log.txt is the first thing that a run creates, checkpoints/ the second.
bool is_run(const std::string& path) {
  const auto entries = std::distance(fs::directory_iterator(path), fs::directory_iterator());
  return fs::exists(path + "/" + kLog) && (entries == 1 || fs::is_directory(path + "/" + kCheckpoints));
}

// Names at the top of a folder that a run puts there.
bool belongs_to_run(const fs::path& entry) {
  const std::string name = entry.filename().string();
  const bool known = name == kConfig || name == kLog || name == kMetrics || name == kSamples || name == kCheckpoints ||
                     name == kReport || name == kProfile || name == kResults || name == kEvaluation;
  return known || name.starts_with(kEventsPrefix) || entry.extension() == ".png";
}

std::string events_path(const std::string& path) {
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().filename().string().starts_with(kEventsPrefix)) return entry.path().string();
  }
  return concat_text(path, "/", kEventsPrefix, std::time(nullptr), ".addp");
}

// The step of a folder's name, when it is step_N.
std::optional<int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kStepPrefix)) return {};
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto result = std::from_chars(name.data() + kStepPrefix.size(), end, step);
  if (result.ec != std::errc() || result.ptr != end) return {};
  return step;
}

bool is_complete(const fs::path& checkpoint) { return fs::is_regular_file(checkpoint / kDone); }

// DONE goes first, so that a kill half-way leaves a checkpoint that is known to be incomplete.
void remove_checkpoint(const fs::path& checkpoint) {
  if (fs::remove(checkpoint / kDone)) sync_directory(checkpoint.string());
  fs::remove_all(checkpoint);
}

// File system errors as Error(runtime); their text names the path.
template <class F>
void guarded(F&& f) {
  try {
    f();
  } catch (const fs::filesystem_error& error) {
    fail(ErrorKind::runtime, error.path1().string(), ": ", error.code().message());
  }
}

}  // namespace

FolderLock::FolderLock(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  check(fd_ >= 0, path, ": cannot be opened (", std::strerror(errno), ")");
  // Other failures mean a file system without locks.
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  ::close(fd_);
  fail(ErrorKind::usage, path, ": another process is running in this folder");
}

FolderLock::~FolderLock() { ::close(fd_); }

RunFolder::RunFolder(const std::string& path, ExistingRun existing, int keep_checkpoints)
    : path_(path), keep_checkpoints_(keep_checkpoints) {
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  check_as(ErrorKind::usage, !path_.empty(), "run folder: a path was expected");
  check_as(ErrorKind::usage, !fs::exists(path_) || fs::is_directory(path_), path_,
           ": is a file, a folder was expected");
  guarded([&] {
    fs::create_directories(path_);
    take_over(existing);
    log_.emplace(file(kLog));
    fs::create_directories(file(kCheckpoints));
    fs::create_directories(file(kSamples));
  });
  metrics_.emplace(file(kMetrics));
  events_.emplace(events_path(path_));
  sync_directory(path_);
  if (resumed_step_) log(concat_text("resumed after step ", *resumed_step_));
}

void RunFolder::take_over(ExistingRun existing) {
  lock_.emplace(path_);
  if (fs::is_empty(path_)) return;
  check_as(ErrorKind::usage, existing != ExistingRun::refuse, path_,
           ": the folder is not empty: continue its run with --resume, replace it with --overwrite, or choose another");
  check_as(ErrorKind::usage, is_run(path_), path_,
           ": the folder holds something other than a run (no log.txt and checkpoints/): choose another");
  fs::create_directories(file(kCheckpoints));
  remove_stale_temporaries(path_);
  if (existing == ExistingRun::resume) return clean_up_for_resume();
  // log.txt and checkpoints/ stay, emptied: a kill half-way must leave what is_run recognises.
  for (int64_t step : checkpoint_steps(path_)) remove_checkpoint(checkpoint_folder(path_, step));
  for (const auto& entry : fs::directory_iterator(file(kCheckpoints))) fs::remove_all(entry.path());
  for (const auto& entry : fs::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    if (belongs_to_run(entry.path()) && name != kLog && name != kCheckpoints) fs::remove_all(entry.path());
  }
  write_file_atomically(file(kLog), "");
}

void RunFolder::clean_up_for_resume() {
  remove_stale_temporaries(file(kSamples));
  for (const auto& entry : fs::directory_iterator(file(kCheckpoints))) {
    if (step_of(entry.path()) && !is_complete(entry.path())) remove_checkpoint(entry.path());
  }
  const std::vector<int64_t> steps = checkpoint_steps(path_);
  if (!steps.empty()) resumed_step_ = steps.back();
  const int64_t last_step = resumed_step_.value_or(-1);
  truncate_metrics(file(kMetrics), last_step);
  const std::string events = events_path(path_);
  if (fs::exists(events)) truncate_events(events, last_step);
}

void RunFolder::write_config(std::string_view json) { write_file_atomically(file(kConfig), json); }

std::string RunFolder::read_config() const { return read_file(file(kConfig), ErrorKind::checkpoint); }

void RunFolder::log(std::string_view line) { log_->append(concat_text(utc_time("%Y-%m-%d %H:%M:%S  "), line, "\n")); }

void RunFolder::scalars(const Metrics& metrics) {
  metrics_->write(metrics);
  for (const auto& [name, value] : metrics.values) events_->scalar(name, metrics.step, value);
}

void RunFolder::sample(const std::string& name, int64_t step, std::string_view png) {
  char digits[32];
  std::snprintf(digits, sizeof(digits), "_%08lld.png", static_cast<long long>(step));
  write_file_atomically(concat_text(file(kSamples), "/", name, digits), png);
  events_->image(name, step, png);
}

void RunFolder::save_checkpoint(int64_t step, const std::function<void(const std::string& folder)>& write_files) {
  const std::string folder = checkpoint_folder(path_, step);
  if (is_complete(folder)) return;
  guarded([&] {
    fs::remove_all(folder);
    fs::create_directories(folder);
  });
  try {
    write_files(folder);
    metrics_->sync();
    events_->sync();
    sync_directory(file(kCheckpoints));
    write_file_atomically(folder + "/" + kDone, concat_text("step ", step, "\n"));
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(folder, ignored);  // the room it took may be what a full disk lacks
    throw;
  }
  std::vector<int64_t> steps = checkpoint_steps(path_);
  const size_t keep = keep_checkpoints_ > 0 ? static_cast<size_t>(keep_checkpoints_) : steps.size();
  guarded([&] {
    for (size_t i = 0; i + keep < steps.size(); ++i) remove_checkpoint(checkpoint_folder(path_, steps[i]));
  });
}

std::vector<int64_t> checkpoint_steps(const std::string& run_path) {
  std::vector<int64_t> steps;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(run_path + "/" + kCheckpoints, missing)) {
    const auto step = step_of(entry.path());
    if (step && is_complete(entry.path())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string checkpoint_folder(const std::string& run_path, int64_t step) {
  return concat_text(run_path, "/", kCheckpoints, "/", kStepPrefix, step);
}

std::string newest_checkpoint(const std::string& run_path) {
  check_as(ErrorKind::checkpoint, fs::is_directory(run_path), run_path, ": no such run folder");
  const std::vector<int64_t> steps = checkpoint_steps(run_path);
  check_as(ErrorKind::checkpoint, !steps.empty(), run_path,
           ": holds no complete checkpoint (checkpoints/step_N with its DONE file): train first");
  return checkpoint_folder(run_path, steps.back());
}

}  // namespace addp
