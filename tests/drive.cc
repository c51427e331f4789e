// Child processes whose output goes to memory files, so that no pipe can fill up.
#include "tests/drive.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "examples/metrics.h"
#include "examples/run_folder.h"
#include "tensor/files.h"

namespace addp {
namespace {

constexpr unsigned kLongestRun = kSanitized ? 900 : 240;  // seconds; a child that hangs is ended

int memory_file(const char* name) {
  const int fd = ::memfd_create(name, MFD_CLOEXEC);
  check(fd >= 0, "memfd_create failed");
  return fd;
}

std::string content(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::pread(fd, buffer, sizeof buffer, static_cast<off_t>(text.size()))) > 0;)
    text.append(buffer, n);
  return text;
}

[[noreturn]] void become(const Words& words, int64_t largest_file, int out, int err) {
  ::alarm(kLongestRun);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  if (largest_file > 0) {
    const rlimit limit = {static_cast<rlim_t>(largest_file), static_cast<rlim_t>(largest_file)};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execv(arguments[0], arguments.data());
  std::perror(arguments[0]);
  ::_exit(127);
}

Words addp_words(const Words& arguments) { return Words{built("addp")} + arguments; }

}  // namespace

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::string built(const std::string& name) {
  const fs::path path = fs::read_symlink("/proc/self/exe").parent_path() / name;
  check(fs::exists(path), path.string(), ": is not built: run `make all`");
  return path.string();
}

Process::Process(const Words& words, int64_t largest_file) : out_(memory_file("out")), err_(memory_file("err")) {
  std::fflush(nullptr);
  child_ = ::fork();
  check(child_ >= 0, "fork failed");
  if (child_ == 0) become(words, largest_file, out_, err_);
}

Process::~Process() {
  if (running()) {
    send(SIGKILL);
    wait();
  }
  ::close(out_);
  ::close(err_);
}

void Process::send(int signal) { ::kill(child_, signal); }

bool Process::running() {
  if (!ended_) ended_ = ::waitpid(child_, &status_, WNOHANG) == child_;
  return !ended_;
}

Outcome Process::wait() {
  if (!ended_) ::waitpid(child_, &status_, 0);
  ended_ = true;
  return {WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_), content(out_), content(err_)};
}

Outcome run_addp(const Words& arguments, int64_t largest_file) {
  return Process(addp_words(arguments), largest_file).wait();
}

static std::string shown(const Words& arguments) {
  std::string text = "addp";
  for (const std::string& word : arguments) text += " " + word;
  return text;
}

Outcome run_well(const Words& arguments) {
  const Outcome outcome = run_addp(arguments);
  INFO(shown(arguments), "\n", outcome.out, outcome.err);
  REQUIRE(outcome.code == 0);
  return outcome;
}

void check_fails(int code, const Words& arguments, const std::vector<std::string>& parts, int64_t largest_file) {
  const Outcome outcome = run_addp(arguments, largest_file);
  INFO(shown(arguments), "\n", outcome.out, outcome.err);
  CHECK(outcome.code == code);
  CHECK(contains("\n" + outcome.err, "\nerror: "));
  for (const std::string& part : parts) CHECK_MESSAGE(contains(outcome.err, part), "expected: ", part);
}

bool wait_until(const std::function<bool()>& condition) {
  for (int i = 0; i < 6000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

std::string bytes_of(const std::string& path) { return read_file(path); }

std::vector<std::pair<int64_t, double>> curve(const std::string& run, const std::string& name) {
  std::vector<std::pair<int64_t, double>> points;
  for (const Metrics& line : read_metrics(run + "/metrics.jsonl")) {
    for (const auto& [key, value] : line.values) {
      if (key == name) points.emplace_back(line.step, value);
    }
  }
  return points;
}

std::string newest(const std::string& run, const std::string& file) { return newest_checkpoint(run) + "/" + file; }

TinyPipeline::TinyPipeline() {
  const int64_t steps = kSanitized ? 4 : 20;
  run_well({"train", "vqgan", "--preset", "tiny", "--data", "shapes", "--run", vqgan, "--steps", std::to_string(steps),
            "--log-every", "1"});
  const Words shared = {"--preset", "tiny",        "--data", "shapes",  "--tokenizer",
                        vqgan,      "--log-every", "1",      "--steps", std::to_string(steps)};
  run_well(Words{"train", "predictor", "--run", predictor} + shared);
  run_well(Words{"train", "addp", "--run", addp, "--predictor", predictor} + shared);
}

const TinyPipeline& tiny_pipeline() {
  static const TinyPipeline pipeline;
  return pipeline;
}

Words train_tiny(const std::string& stage, const std::string& run, int64_t steps) {
  Words words = {"train",          stage,
                 "--preset",       "tiny",
                 "--data",         "shapes",
                 "--run",          run,
                 "--steps",        std::to_string(steps),
                 "--log-every",    "1",
                 "--sample-every", "1000000"};
  if (stage == "finetune") return words + Words{"--encoder", tiny_pipeline().addp};
  if (stage == "predictor" || stage == "addp") words = words + Words{"--tokenizer", tiny_pipeline().vqgan};
  if (stage == "addp") words = words + Words{"--predictor", tiny_pipeline().predictor};
  return words;
}

}  // namespace addp
