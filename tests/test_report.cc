// What people look at: the progress line, charts and the report.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "examples/chart.h"
#include "examples/progress.h"
#include "examples/report.h"
#include "tensor/files.h"
#include "tests/scratch.h"

namespace addp {
namespace {

TEST_CASE("progress: plain lines in a file, a rewritten line on a terminal") {
  CHECK(format_duration(41.2) == "0:41");
  CHECK(format_duration(3725) == "1:02:05");
  CHECK(format_duration(NAN) == "?");
  CHECK(format_number(0.00012345) == "0.0001234");
  CHECK(format_number(12345.6) == "12346");
  CHECK(peak_memory_mib() > 1);

  ScratchFolder folder;
  std::FILE* file = std::fopen((folder / "out").c_str(), "w+");
  {
    Progress progress("vqgan", 100, 400, 1000, file);
    progress.update(101, {{"loss", 2.5}, {"rec", 0.25}}, 64);
    progress.update(102, {{"loss", 2.0}}, 64);  // too soon for a line of its own, shown at the end
    CHECK(progress.images_per_second() > 0);
    progress.note("saved");
  }
  std::fclose(file);
  const std::string text = read_file(folder / "out");
  CHECK(text.starts_with("vqgan 101/400 25%  loss 2.5 rec 0.25  "));
  for (const char* part :
       {" images/s", "  elapsed 0:00", "  left ", "  peak ", "\nsaved\n", "vqgan 102/400 25%  loss 2 "}) {
    CHECK_MESSAGE(contains(text, part), text);
  }
  CHECK(!contains(text, "\r"));

  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) return;  // no terminals here
  ::setenv("TERM", "xterm", 1);
  std::FILE* terminal = std::fopen(::ptsname(master), "w");
  REQUIRE(terminal != nullptr);
  {
    Progress progress("vqgan", 0, 10, 1000, terminal);
    progress.update(1, {{"a quite long name of a part of the loss", 2.5}, {"another part", 0.25}}, 64);
  }
  std::string shown;  // which a busy machine hands over in pieces
  char buffer[1024];
  for (ssize_t count = 1; count > 0 && !shown.ends_with("\n"); shown.append(buffer, std::max<ssize_t>(count, 0)))
    count = ::read(master, buffer, sizeof(buffer));
  std::fclose(terminal);
  ::close(master);
  CHECK(shown.starts_with("\rvqgan 1/10"));
  CHECK(shown.ends_with("\033[K\r\n"));
  CHECK(shown.size() == 1 + 79 + 3 + 2);  // cut to the width, 80 when unknown
}

TEST_CASE("chart: the same drawing as SVG and as pixels, whatever the data") {
  CHECK(smoothed({1, NAN, 1}, 0.9)[2] == doctest::Approx(1));
  CHECK(smoothed({4, 0}, 0.5)[1] == doctest::Approx(4.0 / 3));
  Series falling{"loss <&>", {}, {}};
  for (int i = 1; i <= 5000; ++i) falling.x.push_back(i), falling.y.push_back(100.0 / i);
  ChartOptions options;
  options.title = "Training";
  options.y_label = "nats";
  options.smoothing = 0.9;
  options.log_y = true;
  const std::string svg = chart_svg({falling}, options);
  for (const char* part : {"<svg ", "</svg>", ">Training<", ">nats (log)<", ">step<", ">0.1<", "loss &lt;&amp;&gt;"}) {
    CHECK_MESSAGE(contains(svg, part), part);
  }
  CHECK(!contains(svg, "nan"));
  CHECK(svg.size() < 100000);  // many points are thinned
  const Bitmap bitmap = chart_bitmap({falling}, options, 1);
  CHECK(bitmap.rgb.size() == static_cast<size_t>(bitmap.width * bitmap.height * 3));
  CHECK(std::count(bitmap.rgb.begin(), bitmap.rgb.end(), 255) < static_cast<int64_t>(bitmap.rgb.size()));

  CHECK(contains(chart_svg({}, {}), "no data"));
  CHECK(contains(chart_svg({{"n", {1, 2}, {NAN, INFINITY}}}, {}), "no data"));
  for (const Series& odd :
       {Series{"one", {5}, {3}}, Series{"flat", {1, 2}, {0, 0}}, Series{"gap", {1, 2, 3}, {1, NAN, 2}},
        Series{"tiny", {1, 2}, {1e-300, 2e-300}}, Series{"huge", {1, 2}, {-1e300, 1e300}}}) {
    const std::string drawn = chart_svg({odd}, {});
    CHECK_MESSAGE((!contains(drawn, "nan") && !contains(drawn, "inf")), odd.name);
    chart_bitmap({odd}, options);
  }
  CHECK_THROWS_AS(chart_svg({{"odd", {1}, {}}}, {}), Error);
}

TEST_CASE("report: one file that needs nothing else") {
  CHECK(base64("") == "");
  CHECK(base64("M") == "TQ==");
  CHECK(base64("Ma") == "TWE=");
  CHECK(base64("Man\xff") == "TWFu/w==");
  Report report("ADDP <demo>", "a run");
  report.add_section("Summary", "first\n\nsecond & last");
  report.add_figures({{"usage", "91 %"}});
  report.add_section("Tokenizer");
  report.add_chart({{"loss", {1, 2}, {3, 2}}}, {});
  report.add_image("samples", kPng, 4);
  report.add_table({{"setting", "value"}, {"lr", "<1e-4>"}});
  ScratchFolder folder;
  report.write(folder / "report.html");
  const std::string html = read_file(folder / "report.html");
  for (const char* part :
       {"ADDP &lt;demo&gt;", "<p>first</p>", "<p>second &amp; last</p>", "<svg ", "image/png;base64,iVBOR",
        "class=\"pixelated\" width=\"4\"", "<th>setting</th>", "<td>&lt;1e-4&gt;</td>", "</html>"}) {
    CHECK_MESSAGE(contains(html, part), part);
  }
  for (const char* part : {"<script", "<link", "src=\"http", "url("}) CHECK_MESSAGE(!contains(html, part), part);
  CHECK_THROWS_AS(report.add_image("not a picture", "x"), Error);
}

}  // namespace
}  // namespace addp
