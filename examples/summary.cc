#include "examples/summary.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

namespace addp {
namespace {

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
}

}  // namespace

Spread spread_of(const std::vector<double>& values) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  if (values.empty()) return {nan, nan};
  const double n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (const double value : values) mean += value / n;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, values.size() > 1 ? std::sqrt(squares / (n - 1)) : nan};
}

std::string spread_text(const std::vector<double>& values, int digits) {
  if (values.empty()) return "-";
  const auto [mean, deviation] = spread_of(values);
  return values.size() == 1 ? fixed(mean, digits) : fixed(mean, digits) + " ± " + fixed(deviation, digits);
}

Row& Table::row(const std::string& key, const std::string& row_title) {
  for (Row& there : rows) {
    if (there.key == key) return there;
  }
  rows.push_back({key, row_title, {}});
  return rows.back();
}

void Table::drop_empty_columns() {
  std::erase_if(columns, [&](const Column& column) {
    for (const Row& row : rows) {
      const auto found = row.values.find(column.key);
      if (found != row.values.end() && !found->second.empty()) return false;
    }
    return true;
  });
}

std::vector<std::vector<std::string>> cells(const Table& table) {
  std::vector<std::vector<std::string>> all = {{table.corner}};
  for (const Column& column : table.columns) all[0].push_back(column.title);
  for (const Row& row : table.rows) {
    all.push_back({row.title});
    for (const Column& column : table.columns) {
      const auto found = row.values.find(column.key);
      all.back().push_back(found == row.values.end() ? "-" : spread_text(found->second, column.digits));
    }
  }
  return all;
}

std::string markdown(const Table& table) {
  std::string text = table.title.empty() ? "" : "## " + table.title + "\n\n";
  const auto all = cells(table);
  for (size_t i = 0; i < all.size(); ++i) {
    for (const std::string& cell : all[i]) text += "| " + cell + " ";
    text += "|\n";
    if (i != 0) continue;
    for (size_t c = 0; c < all[i].size(); ++c) text += c == 0 ? "|---" : "|---:";
    text += "|\n";
  }
  if (!table.notes.empty()) text += "\n";
  for (const std::string& note : table.notes) text += "- " + note + "\n";
  return text;
}

std::string json_text(const Table& table) {
  nlohmann::ordered_json json;
  json["title"] = table.title;
  json["columns"] = nlohmann::ordered_json::array();
  for (const Column& column : table.columns) json["columns"].push_back({{"key", column.key}, {"title", column.title}});
  json["rows"] = nlohmann::ordered_json::array();
  for (const Row& row : table.rows) {
    nlohmann::ordered_json entry = {{"key", row.key}, {"title", row.title}};
    for (const Column& column : table.columns) {
      const auto found = row.values.find(column.key);
      if (found == row.values.end() || found->second.empty()) continue;
      const auto [mean, deviation] = spread_of(found->second);
      entry["figures"][column.key] = {
          {"values", found->second}, {"mean", number(mean)}, {"deviation", number(deviation)}};
    }
    json["rows"].push_back(entry);
  }
  json["notes"] = table.notes;
  return json.dump(2) + "\n";
}

}  // namespace addp
