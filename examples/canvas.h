// Something that charts are drawn on: lines and text, as SVG or as pixels. Coordinates are in logical pixels, y down.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace addp {

struct Point {
  double x, y;
};

struct Paint {
  uint8_t r, g, b;
  double opacity = 1;
  bool is_ink = false;  // in SVG the colour of the surrounding text, so that charts suit dark pages too
};
inline constexpr Paint kInk = {0x33, 0x38, 0x40, 1, true};

enum class Anchor { start, middle, end };

class Canvas {
 public:
  virtual ~Canvas() = default;
  // Straight lines from point to point, with round caps; a single point is a dot.
  virtual void line(const std::vector<Point>& points, double width, Paint paint) = 0;
  // One line of text whose baseline begins at, is centred on, or ends at `at`; vertical text reads upwards.
  virtual void text(Point at, std::string_view text, double size, Anchor anchor, bool vertical = false) = 0;
  // In logical pixels; for SVG an estimate, its font is the reader's.
  virtual double text_width(std::string_view text, double size) const = 0;
};

class SvgCanvas : public Canvas {
 public:
  // label: what a screen reader says.
  SvgCanvas(int width, int height, std::string_view label);
  void line(const std::vector<Point>& points, double width, Paint paint) override;
  void text(Point at, std::string_view text, double size, Anchor anchor, bool vertical = false) override;
  double text_width(std::string_view text, double size) const override;
  std::string finish() const { return svg_ + "</svg>\n"; }  // a complete <svg> element, to be put into HTML

 private:
  std::string svg_;
};

// RGB pixels, row by row from the top.
struct Bitmap {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

// Draws anti-aliased lines on white, and text in a stroke font of its own (ASCII; other characters show as a box).
class PixelCanvas : public Canvas {
 public:
  PixelCanvas(int width, int height, double scale);  // scale: pixels per logical pixel
  void line(const std::vector<Point>& points, double width, Paint paint) override;
  void text(Point at, std::string_view text, double size, Anchor anchor, bool vertical = false) override;
  double text_width(std::string_view text, double size) const override;
  const Bitmap& bitmap() const { return bitmap_; }

 private:
  double scale_;
  Bitmap bitmap_;
};

// & < > " as HTML entities.
std::string escape_html(std::string_view text);

}  // namespace addp
