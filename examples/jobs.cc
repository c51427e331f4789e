#include "examples/jobs.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "examples/progress.h"
#include "tensor/files.h"
#include "tensor/parallel.h"

namespace addp {

namespace fs = std::filesystem;

namespace {

// A process that was killed leaves its child for a moment, and with it the lock.
std::unique_ptr<FolderLock> lock_patiently(const std::string& folder) {
  for (int attempt = 0; attempt < 50; ++attempt) {
    try {
      return std::make_unique<FolderLock>(folder);
    } catch (const Error&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
  return std::make_unique<FolderLock>(folder);
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// The last line that says what went wrong, from what a job printed.
std::string last_error(const std::string& log) {
  if (!fs::exists(log)) return "";
  const std::string text = "\n" + read_file(log);
  const size_t at = text.rfind("\nerror: ");
  return at == std::string::npos ? "" : text.substr(at + 1, text.find('\n', at + 1) - at - 1);
}

}  // namespace

std::vector<std::string> shared_arguments(const CommonOptions& options, int at_a_time) {
  std::vector<std::string> words;
  if (at_a_time > 1) words = {"--threads", std::to_string(std::max(1, num_threads() / at_a_time))};
  else if (options.threads > 0) words = {"--threads", std::to_string(options.threads)};
  if (options.device != "cpu") words.insert(words.end(), {"--device", options.device});
  if (options.matmul != "f32") words.insert(words.end(), {"--matmul", options.matmul});
  return words;
}

JobRunner::JobRunner(const std::string& folder, const CommonOptions& common, bool resume)
    : folder_(folder), common_(common) {
  while (folder_.size() > 1 && folder_.back() == '/') folder_.pop_back();
  check_as(ErrorKind::usage, !folder_.empty(), "--run: a folder was expected");
  check_as(ErrorKind::usage, !fs::exists(folder_) || fs::is_directory(folder_), folder_,
           ": is a file, a folder was expected");
  std::error_code failed;
  fs::create_directories(folder_, failed);
  check(!failed, folder_, ": cannot be made (", failed.message(), ")");
  lock_ = lock_patiently(folder_);
  const bool is_empty = fs::is_empty(folder_);
  check_as(ErrorKind::usage, is_empty || fs::is_directory(folder_ + "/jobs"), folder_,
           ": the folder holds something other than a comparison (no jobs/): choose another");
  check_as(ErrorKind::usage, is_empty || resume, folder_,
           ": the folder is not empty: continue with --resume, or choose another");
  fs::create_directories(folder_ + "/jobs", failed);
  check(!failed, folder_, "/jobs: cannot be made (", failed.message(), ")");
  remove_stale_temporaries(folder_ + "/jobs");
}

std::string JobRunner::file(const std::string& name, const char* extension) const {
  return folder_ + "/jobs/" + name + extension;
}

JobRunner::Record JobRunner::read_record(const Job& job) const {
  const std::string path = file(job.name, ".json");
  if (!fs::exists(path)) return {};
  try {
    const auto json = nlohmann::json::parse(read_file(path));
    return {json.at("done"), json.at("seconds"), json.at("arguments")};
  } catch (const nlohmann::json::exception&) {
    fail(ErrorKind::data, path, ": is no record of a job; remove it to run the job again");
  }
}

void JobRunner::write_record(const Job& job, const Record& record) const {
  nlohmann::ordered_json json;
  json["done"] = record.done, json["seconds"] = record.seconds, json["arguments"] = record.arguments;
  write_file_atomically(file(job.name, ".json"), json.dump(2) + "\n");
}

bool JobRunner::is_done(const std::string& name) const {
  const auto found = records_.find(name);
  return found != records_.end() && found->second.done;
}

// From jobs of the same kind that are done; before there is one, from the guesses, corrected by how wrong they were.
double JobRunner::seconds_left(const std::vector<Job>& jobs) const {
  std::map<std::string, std::pair<double, int>> kinds;
  double spent = 0, guessed = 0, left = 0;
  for (const Job& job : jobs) {
    if (!is_done(job.name)) continue;
    const double seconds = records_.at(job.name).seconds;
    kinds[job.kind].first += seconds, ++kinds[job.kind].second;
    spent += seconds, guessed += job.cost;
  }
  for (const Job& job : jobs) {
    if (is_done(job.name)) continue;
    const auto known = kinds.find(job.kind);
    left += known != kinds.end() ? known->second.first / known->second.second
                                 : job.cost * (guessed > 0 ? spent / guessed : 1);
  }
  return left;
}

void JobRunner::fail_job(const Job& job, int code, const std::string& why) {
  failures_.push_back(job.title + ": " + why);
  std::fprintf(stderr, "        failed: %s: %s\n", job.title.c_str(), why.c_str());
  if (exit_code_ == 0) exit_code_ = code;
}

void JobRunner::start(const Job& job, int at_a_time) {
  for (const std::string& needed : job.needs) {
    if (is_done(needed)) continue;
    fail_job(job, 1, "left out, it needs " + needed);
    return;
  }
  std::vector<std::string> arguments = job.arguments;
  for (const std::string& word : shared_arguments(common_, at_a_time)) arguments.push_back(word);
  const auto begin = std::chrono::steady_clock::now();
  running_[start_child(arguments, file(job.name, ".txt"), lock_->descriptor())] = {&job, begin};
}

void JobRunner::finish(const ChildOutcome& outcome) {
  const Running running = running_.at(outcome.pid);
  running_.erase(outcome.pid);
  const Job& job = *running.job;
  Record& record = records_[job.name];
  record.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - running.begin).count();
  record.arguments = job.arguments;
  record.done = outcome.code == 0;
  write_record(job, record);
  if (record.done || forwarded_stop() != 0) return;
  const std::string log = file(job.name, ".txt"), said = last_error(log);
  fail_job(job, outcome.code, concat_text("exit code ", outcome.code, said.empty() ? "" : ", ", said, " (", log, ")"));
}

void JobRunner::read_records(const std::vector<Job>& jobs) {
  for (const Job& job : jobs) {
    const Record record = read_record(job);
    check_as(ErrorKind::usage, !record.done || record.arguments == job.arguments, folder_, ": '", job.name,
             "' was done with other options (", joined(record.arguments), ", now ", joined(job.arguments),
             "); repeat the options it was started with, or use another --run");
    records_[job.name] = record;
  }
}

// Whether all that the job needs has ended, well or not.
bool JobRunner::is_ready(const Job& job, const std::vector<const Job*>& waiting) const {
  return std::none_of(job.needs.begin(), job.needs.end(), [&](const std::string& needed) {
    return std::any_of(waiting.begin(), waiting.end(), [&](const Job* other) { return other->name == needed; }) ||
           std::any_of(running_.begin(), running_.end(), [&](const auto& r) { return r.second.job->name == needed; });
  });
}

bool JobRunner::run(const std::vector<Job>& jobs, int at_a_time, const std::function<void()>& after) {
  read_records(jobs);
  std::vector<const Job*> waiting;
  for (const Job& job : jobs) {
    if (!is_done(job.name)) waiting.push_back(&job);
  }
  const int digits = static_cast<int>(std::to_string(jobs.size()).size());
  for (;;) {
    while (forwarded_stop() == 0 && running_.size() < static_cast<size_t>(at_a_time)) {
      const auto next =
          std::find_if(waiting.begin(), waiting.end(), [&](const Job* j) { return is_ready(*j, waiting); });
      if (next == waiting.end()) break;
      const Job& job = **next;
      waiting.erase(next);
      std::fprintf(stderr, "[%*zd/%zu] %s   (left in all: about %s)\n", digits, &job - jobs.data() + 1, jobs.size(),
                   job.title.c_str(), format_duration(seconds_left(jobs) / at_a_time).c_str());
      start(job, at_a_time);
    }
    if (running_.empty()) break;
    finish(wait_for_child());
    if (after) after();
  }
  return forwarded_stop() == 0 || std::all_of(jobs.begin(), jobs.end(), [&](const Job& j) { return is_done(j.name); });
}

}  // namespace addp
