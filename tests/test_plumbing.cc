// What the program needs beside the models: atomic files, run folders, logs, signals, charts and reports, and above all
// what they do when something goes wrong.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>

#include "tensor/files.h"

namespace addp {
namespace fs = std::filesystem;
namespace {

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
std::string message_of(ErrorKind kind, const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.kind() == kind);
    return error.what();
  }
  FAIL("an error was expected");
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

int count_files(const fs::path& folder) {
  return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// Runs f in a child process and returns its exit code, 128 + signal when one killed it.
int exit_code_of(const std::function<int()>& f) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_CASE("files: written whole and read back, with a size limit") {
  ScratchFolder folder;
  const std::string path = folder / "a.bin";
  write_file_atomically(path, std::string_view("one\0two", 7));
  CHECK(read_file(path) == std::string("one\0two", 7));
  write_pieces_atomically(path, {"header", "", "data"});
  CHECK(read_file(path) == "headerdata");
  CHECK(count_files(folder.path) == 1);
  CHECK(contains(message_of(ErrorKind::data, [&] { read_file(path, ErrorKind::data, 9); }), "a.bin: is larger than"));
  CHECK(read_file(path, ErrorKind::data, 10).size() == 10);
  write_file_atomically(path, "");
  CHECK(read_file(path).empty());
  CHECK(contains(message_of(ErrorKind::checkpoint, [&] { read_file(folder / "no", ErrorKind::checkpoint); }),
                 "No such file"));
  CHECK(contains(message_of(ErrorKind::runtime, [&] { read_file(folder.path.string()); }), "is a directory"));
  CHECK(contains(message_of(ErrorKind::runtime, [&] { write_file_atomically(folder / "no/b", "x"); }), "no/b"));
  CHECK(contains(message_of(ErrorKind::runtime, [&] { write_file_atomically(folder.path.string(), "x"); }),
                 "a file name was expected"));
}

TEST_CASE("files: a symbolic link stays one, and devices are written directly") {
  ScratchFolder folder;
  write_file_atomically(folder / "real", "old");
  fs::create_symlink("real", folder.path / "link");
  write_file_atomically(folder / "link", "new");
  CHECK(fs::is_symlink(folder.path / "link"));
  CHECK(read_file(folder / "real") == "new");
  write_file_atomically("/dev/null", "anything");
  CHECK(fs::is_character_file("/dev/null"));
  const std::string text = message_of(ErrorKind::runtime, [] { write_file_atomically("/dev/full", "x"); });
  CHECK(contains(text, "/dev/full"));
  CHECK(contains(text, "free some space"));
}

TEST_CASE("files: when the disk is full the old file is intact and no temporary remains") {
  ScratchFolder folder;
  const std::string path = folder / "weights";
  write_file_atomically(path, "old");
  const int code = exit_code_of([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file_atomically(path, std::string(100000, 'x'));
    } catch (const Error& error) {
      return error.kind() == ErrorKind::runtime && contains(error.what(), path) ? 42 : 43;
    }
    return 44;
  });
  CHECK(code == 42);
  CHECK(read_file(path) == "old");
  CHECK(count_files(folder.path) == 1);
}

TEST_CASE("files: what a killed write left is removed") {
  ScratchFolder folder;
  write_file_atomically(folder / "a.addp-tmp-1-2", "half");
  write_file_atomically(folder / "a", "whole");
  CHECK(remove_stale_temporaries(folder.path.string()) == 1);
  CHECK(count_files(folder.path) == 1);
}

}  // namespace
}  // namespace addp
