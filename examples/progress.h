// What a training run says while it runs, on stderr: on a terminal one line that is rewritten, elsewhere a plain line
// every few seconds. For example
//   vqgan 1200/4000 30%  loss 0.231 rec 0.101 codebook 0.004  812 images/s  elapsed 0:41  left 1:36  peak 412 MiB
#pragma once
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "examples/metrics.h"

namespace addp {

class Progress {
 public:
  // Steps first_step+1 .. total are about to run. plain_seconds: pause between plain lines.
  Progress(std::string name, int64_t first_step, int64_t total, double plain_seconds = 10, std::FILE* out = stderr);
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `step` steps are done; values are shown as given; images is how many the last steps since the previous call took.
  void update(int64_t step, const Scalars& values, int64_t images);
  void note(std::string_view line);  // a line of its own that stays
  void finish();                     // shows the last state and ends the line
  std::string text() const;          // the present line, for log.txt
  double images_per_second() const;  // a running average over about the last 20 updates

 private:
  using Clock = std::chrono::steady_clock;
  void show();

  std::string name_;
  int64_t first_step_, step_, total_;
  double plain_seconds_;
  std::FILE* out_;
  bool terminal_;
  bool line_is_open_ = false, is_shown_ = true;
  Scalars values_;
  Clock::time_point start_, last_update_, last_shown_;
  double recent_seconds_ = 0, recent_steps_ = 0, recent_images_ = 0;  // exponentially forgotten sums
};

std::string format_duration(double seconds);  // 0:41, 12:05, 3:00:00, or ? when not finite
std::string format_number(double value);      // four significant digits, as short as possible
std::string format_percent(double share);     // 0.8512 is 85.12 %
double peak_memory_mib();                     // the most this process has held in RAM

}  // namespace addp
