// For tests that drive the program as a user does: start it with arguments, wait or send it signals, and judge it by
// its exit code, its output and the files that it leaves.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/scratch.h"

namespace addp {

// Sanitizers make the program some ten times slower: tests then do less of the same.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

using Words = std::vector<std::string>;
Words operator+(Words a, const Words& b);

// A path beside the test program, where make puts the program and the lessons of the same build.
std::string built(const std::string& name);

struct Outcome {
  int code = 0;  // the exit code; 128 + signal when one killed it
  std::string out, err;
};

class Process {
 public:
  // words: an executable's path and its arguments. largest_file: bytes that a file may have, as on a full disk; 0: any.
  explicit Process(const Words& words, int64_t largest_file = 0);
  ~Process();  // kills it if it still runs
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void send(int signal);
  bool running();
  Outcome wait();

 private:
  pid_t child_;
  int out_, err_;
  bool ended_ = false;
  int status_ = 0;
};

// build/addp with these arguments, to its end.
Outcome run_addp(const Words& arguments, int64_t largest_file = 0);
// The same, which must succeed; its output is shown when it does not.
Outcome run_well(const Words& arguments);
// The same, which must fail with this exit code and one line `error: ...` that has every one of the parts.
void check_fails(int code, const Words& arguments, const std::vector<std::string>& parts, int64_t largest_file = 0);

// Sleeps until condition() or for a minute. Returns the condition.
bool wait_until(const std::function<bool()>& condition);

std::string bytes_of(const std::string& path);
// A value of a run's metrics.jsonl, as (step, value) pairs.
std::vector<std::pair<int64_t, double>> curve(const std::string& run, const std::string& name = "loss");
// The name of a file in a run's newest checkpoint.
std::string newest(const std::string& run, const std::string& file = "weights.safetensors");

// The three stages, trained with the tiny preset on drawn shapes, once for all tests that need trained networks.
struct TinyPipeline {
  ScratchFolder folder;
  std::string vqgan = folder / "vqgan", predictor = folder / "predictor", addp = folder / "addp";
  TinyPipeline();
};
const TinyPipeline& tiny_pipeline();

// `train STAGE` with the tiny preset on shapes and whatever frozen networks the stage needs.
Words train_tiny(const std::string& stage, const std::string& run, int64_t steps);

}  // namespace addp
