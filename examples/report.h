// report.html: one file with everything inside (style, charts as SVG, pictures as base64), readable without a network
// and without scripts. Parts appear in the order they are added; the first section should sum the run up.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "examples/chart.h"

namespace addp {

class Report {
 public:
  explicit Report(std::string title, std::string subtitle = "");

  void add_section(const std::string& heading, const std::string& text = "");  // e.g. one per stage of training
  void add_text(const std::string& text);  // plain text; a blank line starts a new paragraph
  // Large figures with their names, side by side: {{"probe accuracy", "86.1 %"}, ...}.
  void add_figures(const std::vector<std::pair<std::string, std::string>>& name_and_value);
  void add_chart(const std::vector<Series>& series, const ChartOptions& options);
  // png: bytes of a PNG file. zoom enlarges each pixel to a square of so many, sharply. Pictures that follow each other
  // stand side by side where there is room.
  void add_image(const std::string& caption, std::string_view png, int zoom = 1);
  // Rows of cells; the first row is the heading when header is true, else the first column is.
  void add_table(const std::vector<std::vector<std::string>>& rows, bool header = true);

  std::string html() const;
  void write(const std::string& path) const;  // atomically

 private:
  std::string title_, subtitle_, body_;
  std::vector<std::string> headings_;
};

std::string base64(std::string_view bytes);

}  // namespace addp
