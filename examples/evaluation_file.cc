// What an evaluation becomes in a run's folder: numbers for programs, figures for people.
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "examples/evaluate.h"
#include "examples/progress.h"
#include "tensor/files.h"

namespace addp {
namespace {

using Json = nlohmann::ordered_json;

std::string path_of(const std::string& run_folder) { return run_folder + "/evaluate.json"; }

}  // namespace

void save_evaluation(const std::string& run_folder, const Evaluation& evaluation) {
  Json json;
  json["subject"] = evaluation.subject;
  json["data"] = evaluation.data;
  json["network"] = evaluation.network;
  json["n"] = evaluation.n;
  json["draw_seconds"] = evaluation.draw_seconds;
  for (const auto& [key, value] : evaluation.values) json[key] = value;  // null where not finite
  write_file_atomically(path_of(run_folder), json.dump(2) + "\n");

  Figures figures = figures_of(evaluation);
  figures.emplace_back("images of each kind", std::to_string(evaluation.n));
  figures.emplace_back("compared with test images of", evaluation.data);
  figures.emplace_back("feature network", evaluation.network);
  if (evaluation.draw_seconds > 0)
    figures.emplace_back("time to draw an image", format_number(evaluation.draw_seconds) + " s");
  save_figures(run_folder, "evaluate", figures);
}

Evaluation read_evaluation(const std::string& run_folder) {
  const std::string path = path_of(run_folder);
  check_as(ErrorKind::data, std::filesystem::exists(path), path, ": does not exist; `addp evaluate --run ", run_folder,
           "` writes it");
  Evaluation evaluation;
  try {
    const Json json = Json::parse(read_file(path));
    evaluation.subject = json.at("subject");
    evaluation.data = json.at("data");
    evaluation.network = json.at("network");
    evaluation.n = json.at("n");
    evaluation.draw_seconds = json.at("draw_seconds");
    for (const auto& [key, value] : json.items()) {
      if (key == "subject" || key == "data" || key == "network" || key == "n" || key == "draw_seconds") continue;
      evaluation.values.emplace_back(key,
                                     value.is_null() ? std::numeric_limits<double>::infinity() : value.get<double>());
    }
  } catch (const Json::exception& error) {
    fail(ErrorKind::data, path, ": ", error.what(), "; evaluate the run again");
  }
  return evaluation;
}

Figures figures_of(const Evaluation& evaluation) {
  struct Shown {
    const char *key, *name, *unit, *floor;
  };
  constexpr Shown kShown[] = {{"fid", "FID", "", "fid_floor"},
                              {"kid", "KID", "", "kid_floor"},
                              {"score", "Inception-style score", "", "score_floor"},
                              {"precision", "precision", "", "precision_floor"},
                              {"recall", "recall", "", "recall_floor"},
                              {"psnr", "PSNR", " dB", ""},
                              {"ssim", "SSIM", "", ""},
                              {"rfid", "rFID", "", "fid_floor"}};
  Figures figures;
  for (const Shown& shown : kShown) {
    const double value = evaluation.value(shown.key), floor = evaluation.value(shown.floor);
    if (std::isnan(value)) continue;
    figures.emplace_back(shown.name, format_number(value) + shown.unit +
                                         (std::isnan(floor) ? "" : " (real images: " + format_number(floor) + ")"));
  }
  return figures;
}

}  // namespace addp
