// A list of commands of this program that is worked through, by one or several child processes at a time, and taken up
// again where it was stopped: after Ctrl-C, kill -9 or power failure the commands that were done are not repeated, the
// one that was interrupted goes on by itself (training has --resume) or is run again.
//   FOLDER/jobs/NAME.json   what was run and how it ended        FOLDER/jobs/NAME.txt   what it printed
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "examples/child.h"
#include "examples/options.h"
#include "examples/run_folder.h"

namespace addp {

struct Job {
  std::string name;                    // unique in its folder, and a file name
  std::string title;                   // for people: "seed 1, ADDP: linear probe"
  std::string kind;                    // jobs of one kind take about as long as each other
  std::vector<std::string> arguments;  // of the program
  std::vector<std::string> needs;      // names of jobs that come before it and must have succeeded
  double cost = 1;                     // a guess of its seconds, until one of its kind was done
};

// What every job gets, when so many of them share the machine: --threads, --device.
std::vector<std::string> shared_arguments(const CommonOptions& options, int at_a_time = 1);

class JobRunner {
 public:
  // Takes the folder, and keeps a second process out. common: what does not change what a job finds out (--threads). A
  // folder that is not empty is Error(usage) without resume, and if it holds no jobs.
  JobRunner(const std::string& folder, const CommonOptions& common, bool resume);

  // Runs what is not done yet, in order, one line on stderr each, at_a_time of them; they share the threads. A job
  // waits for those that it needs. A job that fails is remembered; what needs it is left out, the rest is done. Returns
  // false when a signal stopped it. Throws Error(usage), before anything is run, when the folder has done a job of the
  // same name with other arguments. after: called after each job.
  bool run(const std::vector<Job>& jobs, int at_a_time, const std::function<void()>& after = {});

  bool is_done(const std::string& name) const;
  const std::vector<std::string>& failures() const { return failures_; }  // one line each
  int exit_code() const { return exit_code_; }                            // of the first failure; 0: all is well

 private:
  struct Record {
    bool done = false;
    double seconds = 0;  // over all its runs
    std::vector<std::string> arguments;
  };
  std::string file(const std::string& name, const char* extension) const;
  Record read_record(const Job& job) const;
  void write_record(const Job& job, const Record& record) const;
  void read_records(const std::vector<Job>& jobs);
  double seconds_left(const std::vector<Job>& jobs) const;  // of one job after another
  bool is_ready(const Job& job, const std::vector<const Job*>& waiting) const;
  void fail_job(const Job& job, int code, const std::string& why);
  void start(const Job& job, int at_a_time);
  void finish(const ChildOutcome& outcome);

  struct Running {
    const Job* job;
    std::chrono::steady_clock::time_point begin;
  };

  std::string folder_;
  CommonOptions common_;
  std::unique_ptr<FolderLock> lock_;
  std::map<std::string, Record> records_;
  std::map<pid_t, Running> running_;
  std::vector<std::string> failures_;
  int exit_code_ = 0;
};

}  // namespace addp
