// The folder of one training run, written so that a kill at any moment leaves something to resume from:
//   config.json  log.txt  metrics.jsonl  events.out.tfevents.*  samples/  checkpoints/step_N/
// A checkpoint counts when its DONE file, written last, is there. What else a command puts in (report.html,
// results.json, evaluate.json, profile.json, PNG files) it writes through file() and write_file_atomically.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "examples/event_file.h"
#include "examples/metrics.h"

namespace addp {

// What to do with a folder that is not empty.
enum class ExistingRun { refuse, resume, overwrite };

// Keeps a second process out of a folder; the system gives the lock back when the process ends, however it ends.
class FolderLock {
 public:
  explicit FolderLock(const std::string& path);  // throws Error(usage) when another holds it
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  int descriptor() const { return fd_; }  // a child that inherits it holds the lock too

 private:
  int fd_;
};

class RunFolder {
 public:
  // Creates the folder or takes it over, and locks it against a second process.
  //   refuse: a non-empty folder is Error(usage).   overwrite: what an earlier run left is removed, nothing else.
  //   resume: goes on after the newest complete checkpoint (an empty or missing folder starts at step 0): incomplete
  //   checkpoints, and metrics and events of later steps, are removed; log.txt is kept and says so.
  // resume and overwrite refuse a folder that holds other things than a run. keep_checkpoints: 0 keeps all.
  RunFolder(const std::string& path, ExistingRun existing, int keep_checkpoints = 3);

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  // The step of the checkpoint to go on from, when there is one.
  std::optional<int64_t> resumed_step() const { return resumed_step_; }

  void write_config(std::string_view json);  // config.json: the resolved configuration
  std::string read_config() const;           // throws Error(checkpoint) when it is missing
  void log(std::string_view line);           // log.txt, with the time (UTC)
  void scalars(const Metrics& metrics);      // metrics.jsonl and events; metrics of step N describe the N-th step
  // samples/NAME_00000100.png and events.
  void sample(const std::string& name, int64_t step, std::string_view png);

  // Saves checkpoints/step_N after N steps: write_files(folder) puts the files there, with write_file_atomically; then
  // logs are synced, DONE is written, and only then old checkpoints go. A complete step_N is left alone.
  void save_checkpoint(int64_t step, const std::function<void(const std::string& folder)>& write_files);

 private:
  void take_over(ExistingRun existing);
  void clean_up_for_resume();

  std::string path_;
  int keep_checkpoints_;
  std::optional<FolderLock> lock_;
  std::optional<int64_t> resumed_step_;
  std::optional<AppendFile> log_;
  std::optional<MetricsWriter> metrics_;
  std::optional<EventWriter> events_;
};

// Steps of the complete checkpoints of a run, ascending.
std::vector<int64_t> checkpoint_steps(const std::string& run_path);
std::string checkpoint_folder(const std::string& run_path, int64_t step);
// The folder of the newest complete checkpoint; throws Error(checkpoint) when there is none.
std::string newest_checkpoint(const std::string& run_path);

}  // namespace addp
