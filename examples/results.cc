// results.json: {"probe": [["ADDP features", "81.3 %"], ...], ...}
#include "examples/results.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tensor/error.h"
#include "tensor/files.h"

namespace addp {

using Json = nlohmann::ordered_json;

namespace {

std::string path_of(const std::string& run) { return run + "/results.json"; }

Json read_json(const std::string& run) {
  if (!std::filesystem::exists(path_of(run))) return Json::object();
  Json json = Json::parse(read_file(path_of(run)), nullptr, false);
  check_as(ErrorKind::data, json.is_object(), path_of(run), ": is no JSON object; remove it to start anew");
  return json;
}

}  // namespace

void save_figures(const std::string& run, const std::string& command, const Figures& figures) {
  Json json = read_json(run);
  json[command] = figures;
  write_file_atomically(path_of(run), json.dump(2) + "\n");
}

std::vector<std::pair<std::string, Figures>> read_figures(const std::string& run) {
  std::vector<std::pair<std::string, Figures>> all;
  const Json json = read_json(run);
  try {
    for (const auto& [command, figures] : json.items()) all.emplace_back(command, figures.get<Figures>());
  } catch (const Json::exception&) {
    fail(ErrorKind::data, path_of(run), ": expected lists of [name, value]; remove it to start anew");
  }
  return all;
}

}  // namespace addp
