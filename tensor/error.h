// Errors: one exception type, whose kind becomes the program's exit code, and `check`, which throws it.
// A message says what is wrong, where (the op or the file), what was expected and what was found.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace addp {

// The values are the exit codes of the program.
enum class ErrorKind {
  runtime = 1,
  usage = 2,
  data = 3,
  checkpoint = 4,
  device = 5,      // a device or memory could not be had
  non_finite = 6,  // a loss or gradient is NaN or infinite
  check_failed = 7
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorKind kind_;
};

// Everything streamable, one after another, as one string.
template <class... Parts>
std::string concat_text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <class... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  throw Error(kind, concat_text(parts...));
}

// check(cond, "layer_norm: weight must be [D], x is ", shape) throws Error(runtime) when cond is false.
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) fail(ErrorKind::runtime, parts...);
}

template <class... Parts>
void check_as(ErrorKind kind, bool condition, const Parts&... parts) {
  if (!condition) fail(kind, parts...);
}

}  // namespace addp
