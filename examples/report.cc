// HTML text, put together by hand; everything that comes from outside is escaped.
#include "examples/report.h"

#include <algorithm>
#include <cstdint>

#include "examples/event_file.h"
#include "tensor/files.h"

namespace addp {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #22262c; --soft: #667080; --line: #dde1e7;
        --mark: #2f74d0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181d; --card: #1d2127; --ink: #dfe3e8; --soft: #98a2b0; --line: #323842; --mark: #6aa5f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { margin: 0; font-size: 30px; line-height: 1.2; }
.subtitle { margin: 4px 0 0; color: var(--soft); }
nav { margin: 16px 0 0; }
nav a { margin-right: 18px; color: var(--mark); text-decoration: none; }
section { margin-top: 24px; padding: 20px 24px 24px; background: var(--card); border: 1px solid var(--line);
          border-radius: 10px; }
h2 { margin: 0 0 8px; font-size: 20px; }
p { margin: 0 0 12px; max-width: 75ch; white-space: pre-line; }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 12px 0; }
.figures div { padding: 10px 18px; border: 1px solid var(--line); border-radius: 8px; color: var(--soft); }
.figures b { display: block; color: var(--ink); font-size: 24px; line-height: 1.3; font-variant-numeric: tabular-nums; }
svg { display: inline-block; vertical-align: top; max-width: 100%; height: auto; margin: 8px 12px 8px 0; }
figure { display: inline-block; vertical-align: top; margin: 8px 20px 8px 0; max-width: 100%; }
figure img { display: block; max-width: 100%; border-radius: 4px; }
.pixelated { image-rendering: pixelated; }
figcaption { margin-top: 6px; color: var(--soft); font-size: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 12px 0; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 16px 5px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
)";

std::string paragraphs(const std::string& text) {
  std::string html;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find("\n\n", begin), text.size());
    if (end > begin) html += concat_text("<p>", escape_html(text.substr(begin, end - begin)), "</p>\n");
    begin = end + 2;
  }
  return html;
}

}  // namespace

Report::Report(std::string title, std::string subtitle) : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void Report::add_section(const std::string& heading, const std::string& text) {
  if (!headings_.empty()) body_ += "</section>\n";
  headings_.push_back(heading);
  body_ += concat_text("<section id=\"s", headings_.size(), "\">\n<h2>", escape_html(heading), "</h2>\n");
  add_text(text);
}

void Report::add_text(const std::string& text) { body_ += paragraphs(text); }

void Report::add_figures(const std::vector<std::pair<std::string, std::string>>& name_and_value) {
  body_ += "<div class=\"figures\">\n";
  for (const auto& [name, value] : name_and_value) {
    body_ += concat_text("<div><b>", escape_html(value), "</b>", escape_html(name), "</div>\n");
  }
  body_ += "</div>\n";
}

void Report::add_chart(const std::vector<Series>& series, const ChartOptions& options) {
  body_ += chart_svg(series, options);
}

void Report::add_image(const std::string& caption, std::string_view png, int zoom) {
  const PngSize size = png_size(png);
  body_ += concat_text("<figure><img", zoom > 1 ? " class=\"pixelated\"" : "", " width=\"", size.width * zoom,
                       "\" alt=\"", escape_html(caption), "\" src=\"data:image/png;base64,", base64(png),
                       "\"><figcaption>", escape_html(caption), "</figcaption></figure>\n");
}

void Report::add_table(const std::vector<std::vector<std::string>>& rows, bool header) {
  body_ += "<div class=\"scroll\"><table>\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    body_ += "<tr>";
    for (size_t c = 0; c < rows[r].size(); ++c) {
      const char* cell = (header ? r == 0 : c == 0) ? "th" : "td";
      body_ += concat_text("<", cell, ">", escape_html(rows[r][c]), "</", cell, ">");
    }
    body_ += "</tr>\n";
  }
  body_ += "</table></div>\n";
}

std::string Report::html() const {
  std::string page = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
  page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  page +=
      concat_text("<title>", escape_html(title_), "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n<main>\n");
  page += concat_text("<h1>", escape_html(title_), "</h1>\n");
  if (!subtitle_.empty()) page += concat_text("<p class=\"subtitle\">", escape_html(subtitle_), "</p>\n");
  if (headings_.size() > 1) {
    page += "<nav>";
    for (size_t i = 0; i < headings_.size(); ++i) {
      page += concat_text("<a href=\"#s", i + 1, "\">", escape_html(headings_[i]), "</a>");
    }
    page += "</nav>\n";
  }
  return page + body_ + (headings_.empty() ? "" : "</section>\n") + "</main>\n</body>\n</html>\n";
}

void Report::write(const std::string& path) const { write_file_atomically(path, html()); }

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) {
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    }
    for (size_t k = 0; k < 4; ++k) text += i + k <= bytes.size() ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

}  // namespace addp
