// The house: which room may include which (tensor <- autograd <- nn <- addp <- examples, data <- examples), CLI11 only
// in main.cc.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

namespace {

std::string read(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("rooms: includes go downward only") {
  const std::map<std::string, std::set<std::string>> allowed = {
      {"tensor", {"tensor", "cuda"}},  // one floor: cuda/ holds the device's half of it
      {"cuda", {"tensor", "cuda"}},         {"autograd", {"tensor", "autograd"}},
      {"nn", {"tensor", "autograd", "nn"}}, {"addp", {"tensor", "autograd", "nn", "addp"}},
      {"data", {"tensor", "data"}},         {"examples", {"tensor", "autograd", "nn", "addp", "data", "examples"}}};
  int files = 0;
  for (const auto& [room, may] : allowed) {
    for (const auto& entry : std::filesystem::directory_iterator(room)) {
      const std::string name = entry.path().filename().string();
      std::istringstream lines(read(entry.path()));
      ++files;
      if (entry.is_directory()) continue;
      for (std::string line; std::getline(lines, line);) {
        INFO(room, "/", name, ": ", line);
        if (line.rfind("#include", 0) != 0) continue;
        if (line.find("<CLI/") != std::string::npos) CHECK((room == "examples" && name == "main.cc"));
        const size_t quote = line.find('"');
        if (quote == std::string::npos) continue;
        const size_t slash = line.find('/', quote);
        REQUIRE(slash != std::string::npos);
        CHECK(may.count(line.substr(quote + 1, slash - quote - 1)) == 1);
      }
    }
  }
  CHECK(files > 40);
}

TEST_CASE("rooms: only cuda/ knows which kind of device it is built for") {
  for (const char* room : {"tensor", "autograd", "nn", "addp", "data", "examples"}) {
    for (const auto& entry : std::filesystem::directory_iterator(room)) {
      INFO(entry.path().string());
      const std::string text = read(entry.path());
      CHECK(text.find("ADDP_CUDA") == std::string::npos);
      if (entry.path() != "tensor/philox.h") CHECK(text.find("__CUDACC__") == std::string::npos);  // both sides read it
    }
  }
}
