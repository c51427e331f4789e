// The CUDA emulator keeps its promises: each planted fault (emulator_faults.cu) is found by the builds that should find
// it, and the right form of the same code is not accused. A fault may end the process, so each has its own.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>

#include "cuda/emulator/emulator.h"
#include "tests/emulator_faults.h"

namespace addp {
namespace {

constexpr const char* kVariable = "ADDP_PLANTED_FAULT";
constexpr int kFound = 42;

unsigned this_build() {
#ifdef __SANITIZE_ADDRESS__
  return kAsan;
#else
  return emulator::race_mode() ? kRace : kFast;
#endif
}

struct Outcome {
  bool found = false;
  std::string output;
};

// Runs this program again for the skipped test below alone.
Outcome run_planted(const PlantedFault& fault) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  const std::string command = concat_text(kVariable, "='", fault.name, "' '", program,
                                          "' --no-skip --test-case='emulator: one planted fault' 2>&1");
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe);
  Outcome outcome;
  char buffer[4096];
  while (const size_t count = fread(buffer, 1, sizeof buffer, pipe)) outcome.output.append(buffer, count);
  outcome.found = pclose(pipe) != 0;
  return outcome;
}

bool contains_one_of(const std::string& text, const std::string& alternatives) {
  std::stringstream parts(alternatives);
  for (std::string part; std::getline(parts, part, '|');)
    if (text.find(part) != std::string::npos) return true;
  return false;
}

TEST_CASE("emulator: one planted fault" * doctest::skip()) {
  const char* name = std::getenv(kVariable);
  if (!name) return;
  for (const PlantedFault& fault : planted_faults()) {
    if (fault.name != std::string(name)) continue;
    try {
      fault.planted();
    } catch (const Error& error) {
      std::fprintf(stderr, "found: %s\n", error.what());
      std::_Exit(kFound);
    }
    std::_Exit(0);
  }
}

TEST_CASE("emulator: every planted fault is found by the builds that promise it") {
  for (const PlantedFault& fault : planted_faults()) {
    if (!(fault.found_by & this_build())) continue;
    CAPTURE(std::string(fault.name));
    const Outcome outcome = run_planted(fault);
    CAPTURE(outcome.output);
    CHECK(outcome.found);
    CHECK(contains_one_of(outcome.output, fault.message));
  }
}

TEST_CASE("emulator: right code is not accused, whatever the order of its threads") {
  using emulator::Order;
  for (const Order order : {Order::forward, Order::reverse, Order::random, Order::mixed}) {
    emulator::set_order(order);
    for (const PlantedFault& fault : planted_faults()) {
      CAPTURE(std::string(fault.name));
      CHECK_NOTHROW(fault.right());
    }
  }
}

TEST_CASE("emulator: race mode counts the bytes that a kernel moves") {
  if (!emulator::race_mode()) return;
  const auto find = [](const char* name) -> const PlantedFault& {
    for (const PlantedFault& fault : planted_faults())
      if (fault.name == std::string(name)) return fault;
    FAIL("no such fault: ", name);
    std::abort();
  };
  emulator::reset_counters();
  find("read past the end").right();  // adds up 100 floats
  const emulator::Counters sum = emulator::counters().at("serial_sum_kernel");
  CHECK(sum.launches == 1);
  CHECK(sum.bytes_read == 400);
  CHECK(sum.bytes_written == 4);
  emulator::reset_counters();
  find("missing atomic").right();  // 256 threads, one int
  const emulator::Counters count = emulator::counters().at("count_kernel<false>");
  CHECK(count.bytes_read == 1024);
  CHECK(count.bytes_fetched == 4);
  CHECK(count.bytes_stored == 4);
}

TEST_CASE("emulator: a fault is reported once and leaves the device usable") {
  for (const PlantedFault& fault : planted_faults()) {
    if (this_build() == kAsan || fault.name == std::string("device pointer on the host")) continue;
    CAPTURE(std::string(fault.name));
    if (fault.found_by & this_build()) CHECK_THROWS_AS(fault.planted(), Error);
    CHECK_NOTHROW(fault.right());
  }
}

// ---- The rules for kernel files
// ---------------------------------------------------------------------------------------

std::string read_source(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string without_spaces(const std::string& text) { return std::regex_replace(text, std::regex(R"(\s)"), ""); }

std::vector<std::filesystem::path> kernel_files() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator("cuda"))
    if (entry.path().extension() == ".cu" || entry.path().extension() == ".cuh") files.push_back(entry.path());
  return files;
}

TEST_CASE("cuda: kernel files keep to the rules that make them testable") {
  const std::pair<const char*, const char*> forbidden[] = {
      {R"(<<<)", "launch through launch()"},
      {R"(\b__shared__\b)", "use ADDP_SHARED or ADDP_DYNAMIC_SHARED"},
      {R"(\batomicAdd\s*\(\s*(reinterpret_cast|static_cast)?\s*<?\s*\(?\s*(float|double)\b)", "no atomics on floats"},
      {R"(\b(cooperative_groups|wmma|__constant__|texture|cub::)\b)", "not part of the emulated CUDA"},
      {R"(\basm\b)", "no inline PTX"},
      {R"(\b__shfl(_xor|_up|_down)?\s*\()", "use the _sync form with its mask"},
      {R"(#include\s*<(vector|map|string|memory|functional)>)", "no containers in kernel files"},
      {R"(#ifdef\s+(__CUDACC__|ADDP_CUDA_EMULATOR))", "one source for both"},
  };
  for (const auto& path : kernel_files()) {
    const std::string source = read_source(path);
    for (const auto& [pattern, advice] : forbidden) {
      CAPTURE(path.string());
      CAPTURE(std::string(advice));
      CHECK_FALSE(std::regex_search(source, std::regex(pattern)));
    }
  }
}

TEST_CASE("cuda: every kernel states its launch bounds twice, for nvcc and for the emulator, alike") {
  // The bound is launch_bounds' first argument; the second may hold parentheses of its own.
  const std::string bounds = R"(__launch_bounds__\(([^,()]*)(?:,(?:[^()]|\([^()]*\))*)?\))";
  const std::regex kernel(R"(__global__\s+(?:void\s+)?)" + bounds +
                          R"(\s*(?:void\s+)?\w+_kernel\s*\([^{]*\{\s*ADDP_MAX_THREADS\(([^)]*)\);)");
  const std::regex global(R"(__global__)");
  for (const auto& path : kernel_files()) {
    const std::string source = read_source(path);
    CAPTURE(path.string());
    const auto count = [&](const std::regex& pattern) {
      return std::distance(std::sregex_iterator(source.begin(), source.end(), pattern), std::sregex_iterator());
    };
    CHECK(count(kernel) == count(global));
    for (auto match = std::sregex_iterator(source.begin(), source.end(), kernel); match != std::sregex_iterator();
         ++match)
      CHECK(without_spaces((*match)[1]) == without_spaces((*match)[2]));
  }
}

}  // namespace
}  // namespace addp
