// Our side of the benchmark. Without arguments it reads one request a line from standard input, and answers in one
// line:
//   op FAMILY forward|train DIM...      prepares a case       -> ok CHECKSUM FLOPS BYTES (of one run)
//   step NAME PRESET BATCH FOLDER       the same, and writes its inputs into FOLDER ("-": nowhere)
//   run N                               runs it N times       -> ok SECONDS (of one run, the mean)
//   threads N                           -> ok
//   peak                                -> ok FLOP/S BYTES/S: fused multiply-adds, and copying
//   memory                              -> ok BYTES: the process's peak above what it held when this one began
//   quit
// A checksum is the value of the first run. Errors answer "error TEXT". With arguments:
//   profile STEP PRESET BATCH [RUNS] [name=value ...]   a table of where time and memory of a step go
//   scaling FOLDER [AXIS ...]                           how cost grows, as tables and plots (bench/scaling.h)
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <sstream>

#include "bench/cases.h"
#include "bench/peak.h"
#include "bench/scaling.h"
#include "tensor/parallel.h"

namespace addp {
namespace {

// A line of /proc/self/status in bytes, e.g. VmHWM (peak resident memory).
int64_t process_memory(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    int64_t kilobytes = 0;
    if (key == name + ":" && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

class Server {
 public:
  Server() : start_bytes_(process_memory("VmRSS")) {}

  std::string answer(const std::string& line) {
    std::istringstream in(line);
    std::string word;
    in >> word;
    std::ostringstream out;
    out.precision(17);
    if (word == "op") {
      std::string family, mode;
      in >> family >> mode;
      std::vector<int64_t> dims;
      for (int64_t d = 0; in >> d;) dims.push_back(d);
      case_ = make_op_case(family, mode == "train", dims);
      case_.run();
      const double checksum = case_.checksum();
      out << "ok " << checksum << cost_text();
    } else if (word == "step") {
      std::string name, preset, folder;
      int64_t batch = 0;
      in >> name >> preset >> batch >> folder;
      case_ = {};
      case_ = make_step_case(name, step_config(preset, {}), batch, folder == "-" ? "" : folder);
      const double value = case_.run();
      out << "ok " << value << cost_text();
    } else if (word == "run") {
      int64_t count = 0;
      in >> count;
      check_as(ErrorKind::usage, case_.run && count > 0, "bench: run needs a case and a positive count");
      const auto begin = std::chrono::steady_clock::now();
      for (int64_t i = 0; i < count; ++i) case_.run();
      out << "ok "
          << std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() /
                 static_cast<double>(count);
    } else if (word == "threads") {
      int count = 0;
      in >> count;
      set_num_threads(count);
      out << "ok";
    } else if (word == "peak") {
      out << "ok " << fma_peak() << ' ' << copy_rate();
    } else if (word == "memory") {
      out << "ok " << process_memory("VmHWM") - start_bytes_;
    } else {
      fail(ErrorKind::usage, "bench: unknown request '", line, "'");
    }
    return out.str();
  }

 private:
  // FLOPs and bytes of another run.
  std::string cost_text() const {
    Profile profile;
    {
      const ProfiledStep step(&profile);
      case_.run();
    }
    std::ostringstream out;
    out.precision(17);
    out << ' ' << profile.total_cost().flops << ' ' << profile.total_cost().bytes;
    return out.str();
  }

  int64_t start_bytes_;
  BenchCase case_;
};

void print_profile(const std::vector<std::string>& words) {
  check_as(ErrorKind::usage, words.size() >= 3, "usage: profile STEP PRESET BATCH [RUNS] [name=value ...]");
  size_t next = 3;
  int64_t runs = 5;
  if (next < words.size() && words[next].find('=') == std::string::npos) runs = std::stoll(words[next++]);
  const Config config = step_config(words[1], {words.begin() + static_cast<int64_t>(next), words.end()});
  const BenchCase one = make_step_case(words[0], config, std::stoll(words[2]), "");
  Profile profile;
  one.run();  // finds no memory to reuse
  for (int64_t i = 0; i < runs; ++i) {
    const ProfiledStep step(&profile);
    one.run();
  }
  // Kinds of memory are those of training.
  const bool trains = profile.memory.before_backward > 0;
  const auto kinds = trains ? memory_kinds(profile.memory, one.held) : std::vector<MemoryKind>();
  std::printf("%s", profile_text(profile, kinds).c_str());
}

int serve() {
  Server server;
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    try {
      std::cout << server.answer(line) << std::endl;
    } catch (const std::exception& e) {
      std::cout << "error " << e.what() << std::endl;
    }
  }
  return 0;
}

int command(const std::string& name, const std::vector<std::string>& words) {
  try {
    if (name == "profile") return print_profile(words), 0;
    check_as(ErrorKind::usage, name == "scaling" && !words.empty(),
             "usage: addp_bench [profile ... | scaling FOLDER ...]");
    measure_scaling(words[0], {words.begin() + 1, words.end()});
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}

}  // namespace
}  // namespace addp

int main(int argc, char** argv) {
  if (argc < 2) return addp::serve();
  return addp::command(argv[1], {argv + 2, argv + argc});
}
