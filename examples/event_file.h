// TensorBoard event files: scalars and images, without protobuf or TensorFlow. A file is a sequence of records
//   u64 length | masked crc32c(length) | an Event message | masked crc32c(message)
// whose first says "brain.Event:2". TensorBoard finds files whose names contain `tfevents`.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/files.h"

namespace addp {

// CRC-32C (Castagnoli, reflected polynomial 82F63B78): crc32c("123456789") is E3069283.
uint32_t crc32c(std::string_view bytes);

class EventWriter {
 public:
  explicit EventWriter(const std::string& path);  // continues an existing file, else writes the first record
  void scalar(std::string_view tag, int64_t step, double value);
  void image(std::string_view tag, int64_t step, std::string_view png);  // the bytes of an RGB PNG file
  void sync() { file_.sync(); }

 private:
  void write(int64_t step, std::string_view summary_value);
  AppendFile file_;
};

// One record read back; tag is empty for the first.
struct Event {
  double wall_time = 0;  // seconds since 1970
  int64_t step = 0;
  std::string tag;
  float value = 0;        // of a scalar
  std::string image_png;  // of an image
};

// All whole records. A torn tail is ignored; a wrong checksum or message before it is Error(data).
std::vector<Event> read_events(const std::string& path);

// Drops the records of steps after last_step, and a torn tail.
void truncate_events(const std::string& path, int64_t last_step);

// The extents that a PNG file's header states; throws Error(data) when it is no PNG file.
struct PngSize {
  int64_t width, height;
};
PngSize png_size(std::string_view png);

}  // namespace addp
