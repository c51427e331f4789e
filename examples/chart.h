// Line charts of training curves, as an <svg> element for the report and as pixels for PNG files.
#pragma once
#include <string>
#include <vector>

#include "examples/canvas.h"
#include "examples/metrics.h"

namespace addp {

struct Series {
  std::string name;          // in the legend; "" leaves it out
  std::vector<double> x, y;  // same length; where y is not finite the line has a gap
};

struct ChartOptions {
  std::string title, x_label = "step", y_label;
  bool log_y = false;    // values that are not positive are then left out
  double smoothing = 0;  // [0, 1): weight of the past in a running average, drawn over the pale raw line; 0: none
  int width = 720, height = 320;
};

std::string chart_svg(const std::vector<Series>& series, const ChartOptions& options);
Bitmap chart_bitmap(const std::vector<Series>& series, const ChartOptions& options, double scale = 2);

// The curve of one metric over the steps that have it.
Series metric_series(const std::vector<Metrics>& metrics, const std::string& name);

// y smoothed by s = a s + (1 - a) y, corrected for the missing past as Adam does (Kingma & Ba 2015); not finite y stay.
std::vector<double> smoothed(const std::vector<double>& y, double a);

}  // namespace addp
