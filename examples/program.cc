// From exceptions to exit codes, and the command line to resume with.
#include "examples/program.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <new>

#include "tensor/error.h"

namespace addp {
namespace {

int report_error(const char* what, ErrorKind kind) {
  std::cout.flush();
  std::fflush(stdout);
  std::fprintf(stderr, "error: %s\n", what);
  return static_cast<int>(kind);
}

std::string shell_quoted(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) || std::strchr("-_./=,:+@%", c) != nullptr;
  });
  if (plain) return word;
  std::string quoted = "'";
  for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace

int run_guarded(const std::function<int()>& f) {
  try {
    const int code = f();
    std::cout.flush();
    check(std::fflush(stdout) == 0 && std::cout.good(), "stdout: cannot be written (", std::strerror(errno), ")");
    return code;
  } catch (const Error& error) {
    return report_error(error.what(), error.kind());
  } catch (const std::bad_alloc&) {
    return report_error("out of memory: try a smaller --batch or a smaller preset", ErrorKind::device);
  } catch (const std::exception& error) {
    return report_error(error.what(), ErrorKind::runtime);
  }
}

std::string resume_command(const std::vector<std::string>& arguments) {
  std::string command;
  for (const std::string& word : arguments) {
    if (word == "--overwrite" || word == "--resume") continue;
    command += shell_quoted(word) + " ";
  }
  return command + "--resume";
}

}  // namespace addp
