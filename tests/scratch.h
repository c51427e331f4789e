// What tests of files and of the program share: scratch folders, messages of errors, child processes.
#pragma once
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iterator>
#include <string>

#include "tensor/error.h"

namespace addp {
namespace fs = std::filesystem;

// An empty folder that goes away with its scope.
struct ScratchFolder {
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "addp_plumbing_XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, name, ": cannot be created");
    path = name;
  }
  ~ScratchFolder() { fs::remove_all(path); }
  std::string operator/(const std::string& name) const { return (path / name).string(); }
  fs::path path;
};

// The message of the Error that f throws; its kind must be as given.
inline std::string message_of(ErrorKind kind, const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.kind() == kind);
    return error.what();
  }
  FAIL("an error was expected");
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline int count_files(const fs::path& folder) {
  return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// Runs f in a child process and returns its exit code, 128 + signal when one killed it.
inline int exit_code_of(const std::function<int()>& f) {
  std::fflush(nullptr);  // else the child would print again what is still buffered
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The bytes of a PNG file: one red pixel.
inline const std::string kPng(
    "\211PNG\015\012\032\012\000\000\000\015IHDR\000\000\000\001\000\000\000\001\010\002\000\000\000\220w"
    "S\336\000\000\000\014IDATx\234c\370\317\300\000\000\003\001\001\000\311\376\222\357\000\000\000\000I"
    "END\256B`\202",
    69);

}  // namespace addp
