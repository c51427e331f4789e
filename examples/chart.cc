// Layout of a chart: ranges, ticks, legend, curves. Where the ink goes is the canvas's matter.
#include "examples/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "tensor/error.h"

namespace addp {
namespace {

constexpr std::array<Paint, 8> kColors = {{{0x2f, 0x74, 0xd0},
                                           {0xe0, 0x66, 0x2f},
                                           {0x2a, 0x9d, 0x62},
                                           {0xa8, 0x5c, 0xc6},
                                           {0xc4, 0x9a, 0x1a},
                                           {0xd6, 0x4a, 0x6c},
                                           {0x23, 0xa3, 0xb4},
                                           {0x86, 0x8b, 0x94}}};
constexpr double kFont = 12;

// From values to logical pixels along one axis.
struct Axis {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  bool log = false;
  double begin = 0, end = 1;  // pixels of low and high

  double scaled(double value) const { return log ? std::log10(value) : value; }
  bool shows(double value) const { return std::isfinite(value) && (!log || value > 0); }
  void include(double value) {
    if (!shows(value)) return;
    low = std::min(low, scaled(value));
    high = std::max(high, scaled(value));
  }
  // Room around the data; a range of no width gets one.
  void widen(double share) {
    if (low > high) low = 0, high = 1;
    const double margin = high > low ? share * (high - low) : std::max(0.5, std::abs(low) * 0.1);
    low -= margin;
    high += margin;
  }
  double pixel(double value) const { return begin + (scaled(value) - low) / (high - low) * (end - begin); }
  bool contains(double value) const { return scaled(value) >= low - 1e-9 && scaled(value) <= high + 1e-9; }
};

// About `count` round values between low and high: multiples of 1, 2 or 5 times a power of ten.
std::vector<double> linear_ticks(double low, double high, int count) {
  const double rough = (high - low) / count, power = std::pow(10, std::floor(std::log10(rough)));
  const double step = power * (rough < 1.5 * power ? 1 : rough < 3.5 * power ? 2 : rough < 7.5 * power ? 5 : 10);
  std::vector<double> ticks;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) ticks.push_back(i * step);
  return ticks;
}

// Decades, with 2 and 5 between when there are few; round values when not even that gives three.
std::vector<double> ticks_of(const Axis& axis, int count) {
  if (!axis.log) return linear_ticks(axis.low, axis.high, count);
  std::vector<double> ticks;
  const bool fine = axis.high - axis.low < 3;
  const int stride = std::max(1, static_cast<int>((axis.high - axis.low) / count));
  for (int decade = static_cast<int>(std::floor(axis.low)); decade <= axis.high; decade += stride) {
    for (double digit : {1.0, 2.0, 5.0}) {
      const double value = digit * std::pow(10, decade);
      if ((digit == 1 || fine) && axis.contains(value)) ticks.push_back(value);
    }
  }
  if (ticks.size() >= 3) return ticks;
  ticks = linear_ticks(std::pow(10, axis.low), std::pow(10, axis.high), count);
  std::erase_if(ticks, [&](double value) { return value <= 0 || !axis.contains(value); });
  return ticks;
}

// One label a tick; in thousands when all ticks are.
std::vector<std::string> tick_labels(const std::vector<double>& ticks) {
  double least = std::numeric_limits<double>::infinity(), most = 0;
  for (double value : ticks) {
    most = std::max(most, std::abs(value));
    if (std::abs(value) > 1e-12) least = std::min(least, std::abs(value));
  }
  const bool thousands = most >= 10000 && least >= 1000;
  std::vector<std::string> labels;
  for (double value : ticks) {
    char text[64];
    std::snprintf(text, sizeof(text), thousands ? "%.6gk" : "%.6g", thousands ? value / 1000 : value);
    labels.push_back(std::abs(value) > 1e-12 ? text : "0");
  }
  return labels;
}

// Appends the points of one column of pixels; of many, the first, the lowest, the highest and the last.
void append_column(std::vector<Point>& piece, std::vector<Point>& column) {
  if (column.size() > 4) {
    auto [low, high] = std::minmax_element(column.begin(), column.end(), [](Point a, Point b) { return a.y < b.y; });
    if (low > high) std::swap(low, high);
    column = {column.front(), *low, *high, column.back()};
  }
  piece.insert(piece.end(), column.begin(), column.end());
  column.clear();
}

// The parts of a curve between gaps, in pixels.
std::vector<std::vector<Point>> pieces_of(const std::vector<double>& xs, const std::vector<double>& ys, const Axis& x,
                                          const Axis& y) {
  std::vector<std::vector<Point>> pieces(1);
  std::vector<Point> column;
  for (size_t i = 0; i < xs.size(); ++i) {
    const bool gap = !x.shows(xs[i]) || !y.shows(ys[i]);
    const Point point = gap ? Point{} : Point{x.pixel(xs[i]), y.pixel(ys[i])};
    const bool column_ends = !column.empty() && (gap || std::floor(column[0].x) != std::floor(point.x));
    if (column_ends) append_column(pieces.back(), column);
    if (!gap) column.push_back(point);
    else if (!pieces.back().empty()) pieces.emplace_back();
  }
  append_column(pieces.back(), column);
  return pieces;
}

// Draws the legend from `top` on, in as many rows as it needs, and returns where it ends.
double draw_legend(Canvas& canvas, const std::vector<Series>& series, double left, double right, double top) {
  double pen = left, baseline = top + kFont;
  bool any = false;
  for (size_t i = 0; i < series.size(); ++i) {
    if (series[i].name.empty()) continue;
    const double width = 40 + canvas.text_width(series[i].name, kFont);
    if (pen > left && pen + width > right) pen = left, baseline += 1.5 * kFont;
    canvas.line({{pen + 2, baseline - 4}, {pen + 18, baseline - 4}}, 3, kColors[i % kColors.size()]);
    canvas.text({pen + 24, baseline}, series[i].name, kFont, Anchor::start);
    pen += width;
    any = true;
  }
  return any ? baseline + 0.5 * kFont : top;
}

void draw_axes(Canvas& canvas, const Axis& x, const Axis& y, const ChartOptions& options) {
  Paint grid = kInk;
  grid.opacity = 0.15;
  const std::vector<double> y_ticks = ticks_of(y, 5), x_ticks = ticks_of(x, options.width / 90);
  const std::vector<std::string> y_labels = tick_labels(y_ticks), x_labels = tick_labels(x_ticks);
  for (size_t i = 0; i < y_ticks.size(); ++i) {
    const double at = y.pixel(y_ticks[i]);
    canvas.line({{x.begin, at}, {x.end, at}}, 1, grid);
    canvas.text({x.begin - 8, at + 0.35 * kFont}, y_labels[i], kFont, Anchor::end);
  }
  for (size_t i = 0; i < x_ticks.size(); ++i) {
    const double at = x.pixel(x_ticks[i]);
    canvas.line({{at, y.begin}, {at, y.begin + 5}}, 1, kInk);
    canvas.text({at, y.begin + 9 + kFont}, x_labels[i], kFont, Anchor::middle);
  }
  canvas.line({{x.begin, y.end}, {x.begin, y.begin}, {x.end, y.begin}}, 1, kInk);
  canvas.text({(x.begin + x.end) / 2, options.height - 8.0}, options.x_label, kFont, Anchor::middle);
  const std::string y_label = options.y_label + (options.log_y ? " (log)" : "");
  canvas.text({14, (y.begin + y.end) / 2}, y_label, kFont, Anchor::middle, true);
}

void draw_curve(Canvas& canvas, const Series& series, const Axis& x, const Axis& y, Paint paint, double smoothing) {
  const auto draw = [&](const std::vector<double>& values, double width) {
    for (const auto& piece : pieces_of(series.x, values, x, y))
      canvas.line(piece, piece.size() == 1 ? 5 : width, paint);
  };
  if (smoothing > 0) {
    paint.opacity = 0.28;
    draw(series.y, 1);
    paint.opacity = 1;
    draw(smoothed(series.y, smoothing), 2);
  } else {
    draw(series.y, 1.8);
  }
}

void draw_chart(Canvas& canvas, const std::vector<Series>& series, const ChartOptions& options) {
  Axis x, y;
  y.log = options.log_y;
  for (const Series& one : series) {
    check(one.x.size() == one.y.size(), "chart: series '", one.name, "' has ", one.x.size(), " x and ", one.y.size(),
          " y values");
    for (size_t i = 0; i < one.x.size(); ++i) {
      if (!x.shows(one.x[i]) || !y.shows(one.y[i])) continue;
      x.include(one.x[i]);
      y.include(one.y[i]);
    }
  }
  const bool empty = x.low > x.high;
  x.widen(0);
  y.widen(0.06);
  x.begin = 78, x.end = options.width - 20.0;
  double top = 8;
  if (!options.title.empty()) {
    canvas.text({x.begin, top + 14}, options.title, 15, Anchor::start);
    top += 24;
  }
  y.end = draw_legend(canvas, series, x.begin, x.end, top) + 8;
  y.begin = options.height - 48.0;
  if (empty) return canvas.text({options.width / 2.0, options.height / 2.0}, "no data", kFont, Anchor::middle);
  draw_axes(canvas, x, y, options);
  for (size_t i = 0; i < series.size(); ++i) {
    draw_curve(canvas, series[i], x, y, kColors[i % kColors.size()], options.smoothing);
  }
}

}  // namespace

std::string chart_svg(const std::vector<Series>& series, const ChartOptions& options) {
  SvgCanvas canvas(options.width, options.height, "chart: " + options.title);
  draw_chart(canvas, series, options);
  return canvas.finish();
}

Bitmap chart_bitmap(const std::vector<Series>& series, const ChartOptions& options, double scale) {
  PixelCanvas canvas(options.width, options.height, scale);
  draw_chart(canvas, series, options);
  return canvas.bitmap();
}

Series metric_series(const std::vector<Metrics>& metrics, const std::string& name) {
  Series series;
  series.name = name;
  for (const Metrics& row : metrics) {
    for (const auto& [key, value] : row.values) {
      if (key != name) continue;
      series.x.push_back(static_cast<double>(row.step));
      series.y.push_back(value);
    }
  }
  return series;
}

std::vector<double> smoothed(const std::vector<double>& y, double a) {
  std::vector<double> result = y;
  double sum = 0, weight = 0;
  for (double& value : result) {
    if (!std::isfinite(value)) continue;
    sum = a * sum + (1 - a) * value;
    weight = a * weight + (1 - a);
    value = sum / weight;
  }
  return result;
}

}  // namespace addp
