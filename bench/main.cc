// Our side of the benchmark: reads one request a line from standard input, answers in one line.
//   op FAMILY forward|train DIM...      prepares a case       -> ok CHECKSUM FLOPS BYTES
//   step NAME PRESET BATCH FOLDER       the same, and writes its inputs into FOLDER ("-": nowhere)
//   run N                               runs it N times       -> ok SECONDS (of one run, the mean)
//   threads N                           -> ok
//   memory                              -> ok BYTES: the process's peak above what it held when this one began
//   quit
// A checksum is the value of the first run. Errors answer "error TEXT".
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <sstream>

#include "bench/cases.h"
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
      out << "ok " << case_.checksum() << ' ' << case_.flops << ' ' << case_.bytes;
    } else if (word == "step") {
      std::string name, preset, folder;
      int64_t batch = 0;
      in >> name >> preset >> batch >> folder;
      case_ = {};
      case_ = make_step_case(name, preset, batch, folder == "-" ? "" : folder);
      out << "ok " << case_.run() << " 0 0";
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
    } else if (word == "memory") {
      out << "ok " << process_memory("VmHWM") - start_bytes_;
    } else {
      fail(ErrorKind::usage, "bench: unknown request '", line, "'");
    }
    return out.str();
  }

 private:
  int64_t start_bytes_;
  BenchCase case_;
};

}  // namespace
}  // namespace addp

int main() {
  addp::Server server;
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    try {
      std::cout << server.answer(line) << std::endl;
    } catch (const std::exception& e) {
      std::cout << "error " << e.what() << std::endl;
    }
  }
}
