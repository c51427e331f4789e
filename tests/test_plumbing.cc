// What the program needs beside the models: atomic files, run folders, logs, signals, and above all what
// they do when something goes wrong.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <functional>

#include "examples/chart.h"
#include "examples/event_file.h"
#include "examples/metrics.h"
#include "examples/program.h"
#include "examples/run_folder.h"
#include "examples/signals.h"
#include "examples/suggest.h"
#include "tensor/files.h"
#include "tests/scratch.h"

namespace addp {
namespace {

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

TEST_CASE("append file: continues, and a failed append leaves no half record") {
  ScratchFolder folder;
  const std::string path = folder / "log";
  AppendFile(path).append("one\n");
  AppendFile(path).append("two\n");
  CHECK(read_file(path) == "one\ntwo\n");
  const int code = exit_code_of([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {100, 100};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    AppendFile file(path);
    try {
      file.append(std::string(200, 'x'));
    } catch (const Error&) {
      return 42;
    }
    return 43;
  });
  CHECK(code == 42);
  CHECK(read_file(path) == "one\ntwo\n");
}

TEST_CASE("metrics: written, read, truncated; a torn last line is tolerated, other damage is named") {
  ScratchFolder folder;
  const std::string path = folder / "metrics.jsonl";
  CHECK(read_metrics(path).empty());
  {
    MetricsWriter writer(path);
    writer.write({1, {{"loss", 2.5}, {"lr", 1e-4}}});
    writer.write({2, {{"loss", NAN}}});
    writer.write({3, {{"loss", 1.0 / 3}}});
  }
  AppendFile(path).append("{\"step\":4,\"lo");
  const std::vector<Metrics> rows = read_metrics(path);
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].values == Scalars{{"loss", 2.5}, {"lr", 1e-4}});
  CHECK(std::isnan(rows[1].values[0].second));
  CHECK(rows[2].values[0].second == 1.0 / 3);
  CHECK(metric_series(rows, "lr").x == std::vector<double>{1});

  truncate_metrics(path, 2);
  CHECK(read_file(path) == "{\"step\":1,\"loss\":2.5,\"lr\":0.0001}\n{\"step\":2,\"loss\":null}\n");
  AppendFile(path).append("rubbish\n");
  CHECK(contains(message_of(ErrorKind::data, [&] { read_metrics(path); }), "metrics.jsonl: line 3"));
}

TEST_CASE("event file: checksum, framing, scalars, images, truncation") {
  CHECK(crc32c("123456789") == 0xE3069283u);
  CHECK(crc32c("") == 0);
  ScratchFolder folder;
  const std::string path = folder / "events.out.tfevents.1.addp";
  {
    EventWriter writer(path);
    writer.scalar("loss", 1, 2.5);
    writer.image("samples", 2, kPng);
    CHECK(contains(message_of(ErrorKind::data, [&] { writer.image("samples", 2, "GIF89a"); }), "not a PNG"));
  }
  EventWriter(path).scalar("loss", 300, -1);  // continues without a second version record
  const std::string bytes = read_file(path);
  // Length 24: wall time (9 bytes), then field 3 with "brain.Event:2" (15 bytes).
  CHECK(bytes.substr(0, 8) == std::string("\x18\0\0\0\0\0\0\0", 8));
  CHECK(bytes.substr(12 + 9, 15) == "\x1a\rbrain.Event:2");
  std::vector<Event> events = read_events(path);
  REQUIRE(events.size() == 4);
  CHECK(events[0].tag.empty());
  CHECK(std::abs(events[0].wall_time - static_cast<double>(std::time(nullptr))) < 60);
  CHECK((events[1].tag == "loss" && events[1].step == 1 && events[1].value == 2.5f));
  CHECK((events[2].tag == "samples" && events[2].step == 2 && events[2].image_png == kPng));
  CHECK((events[3].step == 300 && events[3].value == -1));

  AppendFile(path).append(bytes.substr(0, 20));  // torn
  truncate_events(path, 2);
  CHECK(read_events(path).size() == 3);
  std::string damaged = read_file(path);
  damaged[damaged.size() - 6] ^= 1;
  write_file_atomically(path, damaged);
  CHECK(contains(message_of(ErrorKind::data, [&] { read_events(path); }), "wrong checksum"));
}

// A checkpoint with one file that holds its step.
void save(RunFolder& run, int64_t step) {
  run.save_checkpoint(
      step, [&](const std::string& folder) { write_file_atomically(folder + "/weights", std::to_string(step)); });
}

TEST_CASE("run folder: what a run leaves, and how many checkpoints are kept") {
  ScratchFolder scratch;
  const std::string path = scratch / "runs/first/";
  RunFolder run(path, ExistingRun::refuse, 2);
  CHECK(run.path() == scratch / "runs/first");
  CHECK(!run.resumed_step());
  run.write_config("{}");
  CHECK(run.read_config() == "{}");
  run.log("hello");
  CHECK(contains(read_file(run.file("log.txt")), "  hello\n"));
  run.scalars({1, {{"loss", 3}}});
  run.sample("grid", 1, kPng);
  CHECK(read_file(run.file("samples/grid_00000001.png")) == kPng);
  CHECK_THROWS_AS(newest_checkpoint(run.path()), Error);
  for (int64_t step : {5, 10, 15}) save(run, step);
  save(run, 15);
  CHECK(checkpoint_steps(run.path()) == std::vector<int64_t>{10, 15});
  CHECK(read_file(newest_checkpoint(run.path()) + "/weights") == "15");
  CHECK(count_files(run.file("checkpoints")) == 2);
}

TEST_CASE("run folder: a folder that is not empty is refused, and never emptied unless it is a run") {
  ScratchFolder scratch;
  const std::string path = scratch / "run";
  { RunFolder run(path, ExistingRun::refuse); }
  const std::string text = message_of(ErrorKind::usage, [&] { RunFolder(path, ExistingRun::refuse); });
  CHECK(contains(text, path));
  CHECK(contains(text, "--resume"));
  CHECK(contains(text, "--overwrite"));
  {
    RunFolder run(path, ExistingRun::overwrite);
    save(run, 1);
    write_file_atomically(run.file("notes.md"), "mine");
    CHECK(contains(message_of(ErrorKind::usage, [&] { RunFolder(path, ExistingRun::resume); }), "another process"));
  }
  { RunFolder run(path, ExistingRun::overwrite); }
  CHECK(count_files(path + "/checkpoints") == 0);
  CHECK(read_file(path + "/log.txt").empty());
  CHECK(read_file(path + "/notes.md") == "mine");

  fs::create_directories(scratch / "photos");
  write_file_atomically(scratch / "photos/me.png", kPng);
  for (ExistingRun existing : {ExistingRun::refuse, ExistingRun::resume, ExistingRun::overwrite}) {
    CHECK_THROWS_AS(RunFolder(scratch / "photos", existing), Error);
  }
  CHECK(count_files(scratch / "photos") == 1);
  CHECK(contains(message_of(ErrorKind::usage, [&] { RunFolder(scratch / "photos/me.png", ExistingRun::refuse); }),
                 "is a file"));
}

TEST_CASE("run folder: a run killed while saving goes on after its last complete checkpoint") {
  ScratchFolder scratch;
  const std::string path = scratch / "run";
  const int code = exit_code_of([&] {
    RunFolder run(path, ExistingRun::resume);  // of nothing: starts
    if (run.resumed_step()) return 1;
    for (int64_t step = 1; step <= 7; ++step) {
      run.scalars({step, {{"loss", 1.0 / static_cast<double>(step)}}});
      if (step == 4) save(run, step);
    }
    run.save_checkpoint(7, [&](const std::string& folder) {
      write_file_atomically(folder + "/weights", "7");
      write_file_atomically(folder + "/optimizer.addp-tmp-1-1", "half");
      ::kill(::getpid(), SIGKILL);
    });
    return 0;
  });
  CHECK(code == 128 + SIGKILL);
  CHECK(checkpoint_steps(path) == std::vector<int64_t>{4});
  CHECK(fs::exists(checkpoint_folder(path, 7)));

  RunFolder run(path, ExistingRun::resume);
  CHECK(run.resumed_step() == 4);
  CHECK(!fs::exists(checkpoint_folder(path, 7)));
  CHECK(contains(read_file(run.file("log.txt")), "resumed after step 4"));
  run.scalars({5, {{"loss", 0.5}}});
  const std::vector<Metrics> rows = read_metrics(run.file("metrics.jsonl"));
  REQUIRE(rows.size() == 5);
  CHECK(rows.back().values[0].second == 0.5);
  for (const auto& entry : fs::directory_iterator(path)) {
    if (!contains(entry.path().string(), "tfevents")) continue;
    const std::vector<Event> events = read_events(entry.path().string());
    CHECK(events.size() == 6);  // the version and five steps
    CHECK(events.back().value == 0.5f);
  }
}

TEST_CASE("run folder: a checkpoint that cannot be saved leaves the one before") {
  ScratchFolder scratch;
  RunFolder run(scratch / "run", ExistingRun::refuse, 1);
  save(run, 1);
  CHECK_THROWS_AS(run.save_checkpoint(2,
                                      [&](const std::string& folder) {
                                        write_file_atomically(folder + "/weights", "2");
                                        write_file_atomically("/dev/full", "x");
                                      }),
                  Error);
  CHECK(checkpoint_steps(run.path()) == std::vector<int64_t>{1});
  CHECK(count_files(run.file("checkpoints")) == 1);
}

TEST_CASE("signals: once asks to stop, twice quits; SIGUSR1 asks to save") {
  const auto quietly = [](const std::function<int()>& f) {
    return exit_code_of([&] {
      ::close(STDERR_FILENO);
      install_signal_handlers();
      return f();
    });
  };
  CHECK(quietly([] { return stop_requested() || stop_exit_code() != 0 || take_save_request() ? 1 : 42; }) == 42);
  CHECK(quietly([] { return ::raise(SIGINT), stop_requested() ? stop_exit_code() : 1; }) == 130);
  CHECK(quietly([] { return ::raise(SIGTERM), stop_requested() ? stop_exit_code() : 1; }) == 143);
  CHECK(quietly([] { return ::raise(SIGINT), ::raise(SIGINT), 1; }) == 130);
  CHECK(quietly([] { return ::raise(SIGINT), ::raise(SIGTERM), 1; }) == 143);
  CHECK(quietly([] {
          ::raise(SIGUSR1);
          return take_save_request() && !take_save_request() && !stop_requested() ? 42 : 1;
        }) == 42);
}

TEST_CASE("program: exceptions become exit codes and messages") {
  const auto run = [](const std::function<int()>& f) {
    ScratchFolder folder;
    const std::string path = folder / "stderr";
    const int code = exit_code_of([&] {
      ::dup2(::open(path.c_str(), O_CREAT | O_WRONLY, 0600), STDERR_FILENO);
      return run_guarded(f);
    });
    return std::make_pair(code, read_file(path));
  };
  CHECK(run([] { return 7; }) == std::make_pair(7, std::string()));
  CHECK(run([]() -> int { fail(ErrorKind::data, "x.png: truncated"); }) ==
        std::make_pair(3, std::string("error: x.png: truncated\n")));
  CHECK(run([]() -> int { fail(ErrorKind::non_finite, "loss"); }).first == 6);
  CHECK(run([]() -> int { throw std::bad_alloc(); }).first == 5);
  CHECK(run([]() -> int { throw std::out_of_range("odd"); }) == std::make_pair(1, std::string("error: odd\n")));
  const auto [code, text] = run([] {
    ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO);
    std::printf("result\n");
    return 0;
  });
  CHECK(code == 1);
  CHECK(contains(text, "stdout: cannot be written"));
}

TEST_CASE("program: the command to resume with") {
  CHECK(resume_command({"build/addp", "train", "addp", "--data", "my data", "--overwrite"}) ==
        "build/addp train addp --data 'my data' --resume");
  CHECK(resume_command({"addp", "--note", "it's", "--resume"}) == "addp --note 'it'\\''s' --resume");
}

TEST_CASE("suggest: the nearest name, when one is near") {
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("stesp", "steps") == 1);
  const std::vector<std::string> options = {"--batch", "--seed", "--steps", "--lr"};
  CHECK(unknown_name("option", "--stesp", options) == "unknown option --stesp (did you mean --steps?)");
  CHECK(unknown_name("option", "--frobnicate", options) == "unknown option --frobnicate");
  CHECK(nearest_name("x", {}).empty());
}

}  // namespace
}  // namespace addp
