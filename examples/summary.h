// Tables of figures from several repetitions: mean and spread, as Markdown, JSON and rows for the report.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace addp {

// NaN where there are too few values: a mean needs one, a spread two.
struct Spread {
  double mean, deviation;  // deviation: of a sample, with n - 1
};
Spread spread_of(const std::vector<double>& values);
// "81.30 ± 0.42", "81.30" for a single value, "-" for none.
std::string spread_text(const std::vector<double>& values, int digits);

struct Column {
  std::string key, title;  // title: with its unit
  int digits = 2;          // behind the point
};

struct Row {
  std::string key, title;
  std::map<std::string, std::vector<double>> values;  // by column; one value a repetition
};

struct Table {
  std::string title, corner;  // corner: what the rows are
  std::vector<Column> columns;
  std::vector<Row> rows;
  std::vector<std::string> notes;

  Row& row(const std::string& key, const std::string& title);  // added when it is not there
  void drop_empty_columns();
};

std::vector<std::vector<std::string>> cells(const Table& table);  // the first row is the heading
std::string markdown(const Table& table);
std::string json_text(const Table& table);  // an object: title, columns, rows with values, mean, deviation, notes

}  // namespace addp
