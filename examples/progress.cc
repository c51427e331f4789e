// The progress line: rates, remaining time, and when to show it.
#include "examples/progress.h"

#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "tensor/error.h"

namespace addp {
namespace {

constexpr double kForget = 0.95;          // memory of the running average: about 20 updates
constexpr double kTerminalSeconds = 0.1;  // pause between rewrites

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

bool is_rewritable_terminal(std::FILE* out) {
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(out)) && term != nullptr && std::string_view(term) != "dumb";
}

// What fits on one row; a longer line would wrap and could not be rewritten.
std::string cut_to_terminal(const std::string& line, std::FILE* out) {
  winsize size = {};
  if (::ioctl(::fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) size.ws_col = 80;
  return line.substr(0, std::max(1, size.ws_col - 1));
}

}  // namespace

Progress::Progress(std::string name, int64_t first_step, int64_t total, double plain_seconds, std::FILE* out)
    : name_(std::move(name)),
      first_step_(first_step),
      step_(first_step),
      total_(total),
      plain_seconds_(plain_seconds),
      out_(out),
      terminal_(is_rewritable_terminal(out)),
      start_(Clock::now()),
      last_update_(start_),
      last_shown_(start_ - std::chrono::hours(1)) {}

void Progress::update(int64_t step, const Scalars& values, int64_t images) {
  const auto now = Clock::now();
  recent_seconds_ = kForget * recent_seconds_ + seconds_between(last_update_, now);
  recent_steps_ = kForget * recent_steps_ + static_cast<double>(step - step_);
  recent_images_ = kForget * recent_images_ + static_cast<double>(images);
  step_ = step;
  values_ = values;
  last_update_ = now;
  is_shown_ = false;
  if (seconds_between(last_shown_, now) >= (terminal_ ? kTerminalSeconds : plain_seconds_)) show();
}

void Progress::note(std::string_view line) {
  std::fprintf(out_, "%s%.*s\n", line_is_open_ ? "\r\033[K" : "", static_cast<int>(line.size()), line.data());
  if (line_is_open_) show();
}

void Progress::finish() {
  if (!is_shown_) show();
  if (line_is_open_) std::fputc('\n', out_);
  line_is_open_ = false;
  std::fflush(out_);
}

void Progress::show() {
  if (terminal_) std::fprintf(out_, "\r%s\033[K", cut_to_terminal(text(), out_).c_str());
  else std::fprintf(out_, "%s\n", text().c_str());
  std::fflush(out_);
  line_is_open_ = terminal_;
  is_shown_ = true;
  last_shown_ = Clock::now();
}

double Progress::images_per_second() const { return recent_seconds_ > 0 ? recent_images_ / recent_seconds_ : 0; }

std::string Progress::text() const {
  std::string line = concat_text(name_, " ", step_, "/", total_);
  if (total_ > 0) line += concat_text(" ", 100 * step_ / total_, "% ");
  for (const auto& [name, value] : values_) line += concat_text(" ", name, " ", format_number(value));
  if (recent_images_ > 0) line += concat_text("  ", format_number(images_per_second()), " images/s");
  line += "  elapsed " + format_duration(seconds_between(start_, last_update_));
  const double steps_left = static_cast<double>(total_ - step_);
  if (steps_left > 0 && recent_steps_ > 0) {
    line += "  left " + format_duration(steps_left * recent_seconds_ / recent_steps_);
  }
  return line + concat_text("  peak ", std::llround(peak_memory_mib()), " MiB");
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e9) return "?";
  const long long s = std::llround(seconds);
  char text[64];
  if (s >= 3600) std::snprintf(text, sizeof(text), "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  else std::snprintf(text, sizeof(text), "%lld:%02lld", s / 60, s % 60);
  return text;
}

std::string format_number(double value) {
  char text[64];
  const bool whole_digits = std::abs(value) >= 1000 && std::abs(value) < 1e7;
  std::snprintf(text, sizeof(text), whole_digits ? "%.0f" : "%.4g", value);
  return text;
}

std::string format_percent(double share) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.2f %%", 100 * share);
  return text;
}

double peak_memory_mib() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;  // Linux counts in KiB
}

}  // namespace addp
