// SVG text, and a small rasteriser: a pixel is covered by how far its centre is from the line.
#include "examples/canvas.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>

namespace addp {
namespace {

template <class... Numbers>
std::string format(const char* pattern, Numbers... numbers) {
  char text[256];
  std::snprintf(text, sizeof(text), pattern, numbers...);
  return text;
}

// ---- Stroke font ----------------------------------------------------------------------------------------------------
// Per character, from ' ' to '~': strokes separated by blanks, each a row of points "xy" on a grid whose capitals reach
// from y 0 to the baseline at y 6; "" has no shape of its own.
constexpr double kCapHeight = 6;
constexpr double kUnit = 0.7 / kCapHeight;  // of the grid, at size 1
constexpr std::array<const char*, 95> kStrokes = {" ",
                                                  "0004 0606",
                                                  "0001 2021",
                                                  "1016 3036 0242 0444",
                                                  "",
                                                  "0010110100 3545463635 0640",
                                                  "",
                                                  "0001",  //  !"#$%&'
                                                  "10010516",
                                                  "00111506",
                                                  "0444 1325 1523",
                                                  "0444 2226",
                                                  "0607",
                                                  "0434",
                                                  "0606",
                                                  "0640",  // ()*+,-./
                                                  "103041453616050110",
                                                  "1120 2026 1636",
                                                  "011030414206 0646",
                                                  "0110304142334445361605 1333",  // 0123
                                                  "36300444",
                                                  "40000312324345361605",
                                                  "30100105163645443303",
                                                  "004016",  // 4567
                                                  "103041423313020110 1304051636454433",
                                                  "43130201103041453616",  // 89
                                                  "0303 0606",
                                                  "0303 0607",
                                                  "420446",
                                                  "0343 0545",
                                                  "024406",
                                                  "011030414223 2424 2626",  // :;<=>?
                                                  "",
                                                  "062046 1434",
                                                  "06003041423303 3344453606",
                                                  "4130100105163645",
                                                  "00063645413000",  // @ABCD
                                                  "40000646 0333",
                                                  "400006 0333",
                                                  "41301001051636454323",
                                                  "0006 4046 0343",
                                                  "0020 1016 0626",  // EFGHI
                                                  "4045361605",
                                                  "0006 4004 2246",
                                                  "000646",
                                                  "0600234046",
                                                  "06004640",
                                                  "103041453616050110",  // JKLMNO
                                                  "06003041423303",
                                                  "103041453616050110 2446",
                                                  "06003041423303 2346",
                                                  "413010010213334445361605",  // PQRS
                                                  "0040 2026",
                                                  "000516364540",
                                                  "002640",
                                                  "0016233640",
                                                  "0046 4006",
                                                  "002340 2326",
                                                  "00400646",  // TUVWXYZ
                                                  "10000616",
                                                  "0046",
                                                  "00101606",
                                                  "022042",
                                                  "0747",
                                                  "0011",  // [\]^_`
                                                  "12324346 441405163645",
                                                  "0006 0312324345361605",
                                                  "4332120305163645",
                                                  "4046 4332120305163645",  // abcd
                                                  "04444332120305163645",
                                                  "30201116 0232",
                                                  "4247381807 4332120305163645",
                                                  "0006 0312324346",  // efgh
                                                  "0206 0000",
                                                  "121708 1010",
                                                  "0006 3204 1336",
                                                  "0006",
                                                  "0206 03122326 23324346",  // ijklm
                                                  "0206 0312324346",
                                                  "123243453616050312",
                                                  "0208 0312324345361605",
                                                  "4248 4332120305163645",  // nopq
                                                  "0206 031232",
                                                  "423212031434453606",
                                                  "10152636 0232",
                                                  "0205163645 4246",
                                                  "022642",  // rstuv
                                                  "0216233642",
                                                  "0246 4206",
                                                  "0226 4218",
                                                  "02420646",  // wxyz
                                                  "20101203141626",
                                                  "0008",
                                                  "00101223141606",
                                                  "0413243342"};  // {|}~
constexpr const char* kBox = "0040460600";

const char* strokes_of(char c) {
  const char* strokes = c >= ' ' && c <= '~' ? kStrokes[static_cast<size_t>(c - ' ')] : "";
  return *strokes ? strokes : kBox;
}

double advance_of(char c) {
  char right = '0';
  for (const char* p = strokes_of(c); *p; p += *p == ' ' ? 1 : 2) right = std::max(right, *p);
  return c == ' ' ? 3 : right - '0' + 2;
}

double distance_to_segment(Point p, Point a, Point b) {
  const double dx = b.x - a.x, dy = b.y - a.y, squared = dx * dx + dy * dy;
  const double t = squared > 0 ? std::clamp(((p.x - a.x) * dx + (p.y - a.y) * dy) / squared, 0.0, 1.0) : 0;
  return std::hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

// Pixels that a line touches: [left, right) x [top, bottom).
struct Box {
  double x0 = 1e9, y0 = 1e9, x1 = -1e9, y1 = -1e9;
  int64_t left = 0, top = 0, right = 0, bottom = 0;

  void include(Point p) {
    x0 = std::min(x0, p.x), y0 = std::min(y0, p.y);
    x1 = std::max(x1, p.x), y1 = std::max(y1, p.y);
  }
  void round_out(double margin, int64_t width, int64_t height) {
    const auto pixel = [](double v, int64_t extent) {
      return static_cast<int64_t>(std::clamp(std::floor(v), 0.0, static_cast<double>(extent)));
    };
    left = pixel(x0 - margin, width), right = pixel(x1 + margin + 1, width);
    top = pixel(y0 - margin, height), bottom = pixel(y1 + margin + 1, height);
  }
  int64_t columns() const { return right - left; }
  int64_t rows() const { return bottom - top; }
};

}  // namespace

// ---- SVG ------------------------------------------------------------------------------------------------------------
SvgCanvas::SvgCanvas(int width, int height, std::string_view label) {
  svg_ = format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\" ", width,
                height, width) +
         "aria-label=\"" + escape_html(label) + "\" font-family=\"system-ui,sans-serif\" fill=\"none\" " +
         "stroke-linecap=\"round\" stroke-linejoin=\"round\">\n";
}

void SvgCanvas::line(const std::vector<Point>& points, double width, Paint paint) {
  if (points.empty()) return;
  svg_ += "<path stroke=\"" + (paint.is_ink ? "currentColor" : format("#%02x%02x%02x", paint.r, paint.g, paint.b)) +
          format("\" stroke-width=\"%g\"", width) +
          (paint.opacity < 1 ? format(" stroke-opacity=\"%g\"", paint.opacity) : "") + " d=\"";
  for (size_t i = 0; i < points.size(); ++i) svg_ += format("%c%.1f %.1f", i ? 'L' : 'M', points[i].x, points[i].y);
  svg_ += points.size() == 1 ? "l0 0\"/>\n" : "\"/>\n";
}

void SvgCanvas::text(Point at, std::string_view text, double size, Anchor anchor, bool vertical) {
  constexpr std::array<const char*, 3> kAnchors = {"start", "middle", "end"};
  svg_ += format("<text x=\"%.1f\" y=\"%.1f\" font-size=\"%g\" text-anchor=\"%s\" fill=\"currentColor\"", at.x, at.y,
                 size, kAnchors[static_cast<size_t>(anchor)]);
  if (vertical) svg_ += format(" transform=\"rotate(-90 %.1f %.1f)\"", at.x, at.y);
  svg_.append(">").append(escape_html(text)).append("</text>\n");
}

double SvgCanvas::text_width(std::string_view text, double size) const {
  double width = 0;
  for (unsigned char c : text) width += size * (std::isupper(c) ? 0.72 : 0.6);
  return width;
}

// ---- Pixels ---------------------------------------------------------------------------------------------------------
PixelCanvas::PixelCanvas(int width, int height, double scale) : scale_(scale) {
  bitmap_.width = static_cast<int64_t>(std::ceil(width * scale));
  bitmap_.height = static_cast<int64_t>(std::ceil(height * scale));
  bitmap_.rgb.assign(static_cast<size_t>(bitmap_.width * bitmap_.height * 3), 255);
}

void PixelCanvas::line(const std::vector<Point>& points, double width, Paint paint) {
  if (points.empty()) return;
  const double radius = width * scale_ / 2;
  std::vector<Point> path;
  Box all;
  for (const Point& point : points) {
    path.push_back({point.x * scale_, point.y * scale_});
    all.include(path.back());
  }
  all.round_out(radius + 1, bitmap_.width, bitmap_.height);
  // The whole line's coverage first, then one blend: joints of a translucent line must not show.
  std::vector<float> coverage(static_cast<size_t>(all.columns() * all.rows()));
  for (size_t i = 0; i < path.size(); ++i) {
    const Point a = path[i ? i - 1 : 0], b = path[i];
    Box segment;
    segment.include(a);
    segment.include(b);
    segment.round_out(radius + 1, bitmap_.width, bitmap_.height);
    for (int64_t y = segment.top; y < segment.bottom; ++y) {
      for (int64_t x = segment.left; x < segment.right; ++x) {
        const double distance = distance_to_segment({x + 0.5, y + 0.5}, a, b);
        float& covered = coverage[static_cast<size_t>((y - all.top) * all.columns() + x - all.left)];
        covered = std::max(covered, static_cast<float>(std::clamp(radius + 0.5 - distance, 0.0, 1.0)));
      }
    }
  }
  const std::array<uint8_t, 3> color = {paint.r, paint.g, paint.b};
  for (int64_t y = all.top, i = 0; y < all.bottom; ++y) {
    for (int64_t x = all.left; x < all.right; ++x, ++i) {
      uint8_t* pixel = &bitmap_.rgb[static_cast<size_t>(3 * (y * bitmap_.width + x))];
      const double alpha = coverage[static_cast<size_t>(i)] * paint.opacity;
      for (int c = 0; c < 3; ++c)
        pixel[c] = static_cast<uint8_t>(std::lround(pixel[c] + alpha * (color[c] - pixel[c])));
    }
  }
}

double PixelCanvas::text_width(std::string_view text, double size) const {
  double units = -1;  // no gap after the last
  for (char c : text) units += advance_of(c);
  return units * size * kUnit;
}

void PixelCanvas::text(Point at, std::string_view text, double size, Anchor anchor, bool vertical) {
  const double unit = size * kUnit, length = text_width(text, size) / unit;
  double pen = anchor == Anchor::start ? 0 : anchor == Anchor::middle ? -length / 2 : -length;
  for (char c : text) {
    std::vector<Point> stroke;
    for (const char* p = strokes_of(c);; p += *p == ' ' ? 1 : 2) {
      if (*p == ' ' || *p == 0) {
        if (!stroke.empty()) line(stroke, size / 11, kInk);
        stroke.clear();
        if (*p == 0) break;
        continue;
      }
      const double x = (pen + p[0] - '0') * unit, y = (p[1] - '0' - kCapHeight) * unit;
      stroke.push_back(vertical ? Point{at.x + y, at.y - x} : Point{at.x + x, at.y + y});
    }
    pen += advance_of(c);
  }
}

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    if (c == '&') escaped += "&amp;";
    else if (c == '<') escaped += "&lt;";
    else if (c == '>') escaped += "&gt;";
    else if (c == '"') escaped += "&quot;";
    else escaped += c;
  }
  return escaped;
}

}  // namespace addp
