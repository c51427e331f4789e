// A list of commands of this program that is worked through, one child process after another, and taken up again where
// it was stopped: after Ctrl-C, kill -9 or power failure the commands that were done are not repeated, the one that was
// interrupted goes on by itself (training has --resume) or is run again.
//   FOLDER/jobs/NAME.json   what was run and how it ended        FOLDER/jobs/NAME.txt   what it printed
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

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

// What every job gets: --threads, --device.
std::vector<std::string> shared_arguments(const CommonOptions& options);

class JobRunner {
 public:
  // Takes the folder, and keeps a second process out. shared: arguments for every job that do not change what it finds
  // out (--threads). A folder that is not empty is Error(usage) without resume, and if it holds no jobs.
  JobRunner(const std::string& folder, std::vector<std::string> shared, bool resume);

  // Runs what is not done yet, in order, one line on stderr each. A job that fails is remembered; what needs it is left
  // out, the rest is done. Returns false when a signal stopped it. Throws Error(usage), before anything is run, when
  // the folder has done a job of the same name with other arguments.
  // after: called after each job.
  bool run(const std::vector<Job>& jobs, const std::function<void()>& after = {});

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
  double seconds_left(const std::vector<Job>& jobs, size_t from) const;
  void fail_job(const Job& job, int code, const std::string& why);
  bool run_job(const Job& job);

  std::string folder_;
  std::vector<std::string> shared_;
  std::unique_ptr<FolderLock> lock_;
  std::map<std::string, Record> records_;
  std::vector<std::string> failures_;
  int exit_code_ = 0;
};

}  // namespace addp
