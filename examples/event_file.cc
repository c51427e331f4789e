// The few protobuf messages that TensorBoard needs, encoded and decoded by hand:
//   Event   1 wall_time double, 2 step int64, 3 file_version string, 5 summary
//   Summary 1 value (repeated);   Value 1 tag, 2 simple_value float, 4 image
//   Image   1 height, 2 width, 3 colorspace, 4 encoded_image_string
#include "examples/event_file.h"

#include <array>
#include <chrono>
#include <cstring>
#include <functional>

namespace addp {
namespace {

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (c & 1 ? 0x82F63B78u : 0);
    table[i] = c;
  }
  return table;
}

// Plain checksums of data that contain checksums are weak, so the format stores them rotated and shifted.
uint32_t masked_crc(std::string_view bytes) {
  const uint32_t c = crc32c(bytes);
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

// The bytes of a number; this machine is little-endian as the format is.
template <class T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <class T>
T from_raw(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// ---- Writing --------------------------------------------------------------------------------------------------------
enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  return out + static_cast<char>(value);
}

std::string key(int field, WireType type) { return varint(static_cast<uint64_t>(field) << 3 | type); }
std::string int_field(int field, int64_t value) { return key(field, kVarint) + varint(static_cast<uint64_t>(value)); }
std::string double_field(int field, double value) { return key(field, kFixed64) + raw(value); }
std::string float_field(int field, float value) { return key(field, kFixed32) + raw(value); }
std::string bytes_field(int field, std::string_view bytes) {
  return key(field, kBytes).append(varint(bytes.size())).append(bytes);
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::string to_record(std::string_view event) {
  const std::string length = raw(static_cast<uint64_t>(event.size()));
  return (length + raw(masked_crc(length))).append(event).append(raw(masked_crc(event)));
}

// ---- Reading --------------------------------------------------------------------------------------------------------
struct Field {
  int number;
  uint64_t integer;        // of varints
  std::string_view bytes;  // of everything else
};

uint64_t take_varint(std::string_view& message) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    check_as(ErrorKind::data, !message.empty(), "event: a message ends within a number");
    const auto byte = static_cast<unsigned char>(message[0]);
    message.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) return value;
  }
  fail(ErrorKind::data, "event: a number is longer than 64 bits");
}

void for_each_field(std::string_view message, const std::function<void(const Field&)>& f) {
  while (!message.empty()) {
    const uint64_t k = take_varint(message);
    Field field{static_cast<int>(k >> 3), 0, {}};
    const int type = static_cast<int>(k & 7);
    if (type == kVarint) {
      field.integer = take_varint(message);
    } else {
      check_as(ErrorKind::data, type == kFixed64 || type == kBytes || type == kFixed32, "event: wire type ", type);
      const uint64_t size = type == kFixed64 ? 8 : type == kFixed32 ? 4 : take_varint(message);
      check_as(ErrorKind::data, size <= message.size(), "event: a field is longer than its message");
      field.bytes = message.substr(0, size);
      message.remove_prefix(size);
    }
    f(field);
  }
}

Event parse_event(std::string_view message) {
  Event event;
  for_each_field(message, [&](const Field& field) {
    if (field.number == 1 && field.bytes.size() == 8) event.wall_time = from_raw<double>(field.bytes);
    if (field.number == 2) event.step = static_cast<int64_t>(field.integer);
    if (field.number != 5) return;
    for_each_field(field.bytes, [&](const Field& value) {
      for_each_field(value.bytes, [&](const Field& part) {
        if (part.number == 1) event.tag = part.bytes;
        if (part.number == 2 && part.bytes.size() == 4) event.value = from_raw<float>(part.bytes);
        if (part.number != 4) return;
        for_each_field(part.bytes, [&](const Field& image) {
          if (image.number == 4) event.image_png = image.bytes;
        });
      });
    });
  });
  return event;
}

// Calls f(record, message) for each whole record.
void for_each_record(const std::string& path, std::string_view bytes,
                     const std::function<void(std::string_view, std::string_view)>& f) {
  while (bytes.size() >= 12) {
    check_as(ErrorKind::data, from_raw<uint32_t>(bytes.substr(8)) == masked_crc(bytes.substr(0, 8)), path,
             ": a record's length has a wrong checksum");
    const uint64_t size = from_raw<uint64_t>(bytes);
    if (bytes.size() - 12 < 4 || bytes.size() - 16 < size) return;
    const std::string_view message = bytes.substr(12, size);
    check_as(ErrorKind::data, from_raw<uint32_t>(bytes.substr(12 + size)) == masked_crc(message), path,
             ": a record has a wrong checksum");
    f(bytes.substr(0, 16 + size), message);
    bytes.remove_prefix(16 + size);
  }
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = crc_table();
  uint32_t c = ~0u;
  for (unsigned char byte : bytes) c = kTable[(c ^ byte) & 255] ^ (c >> 8);
  return ~c;
}

EventWriter::EventWriter(const std::string& path) : file_(path) {
  if (file_.size() == 0) file_.append(to_record(double_field(1, now()) + bytes_field(3, "brain.Event:2")));
}

void EventWriter::write(int64_t step, std::string_view summary_value) {
  const std::string summary = bytes_field(1, summary_value);
  file_.append(to_record(double_field(1, now()) + int_field(2, step) + bytes_field(5, summary)));
}

void EventWriter::scalar(std::string_view tag, int64_t step, double value) {
  write(step, bytes_field(1, tag) + float_field(2, static_cast<float>(value)));
}

void EventWriter::image(std::string_view tag, int64_t step, std::string_view png) {
  constexpr int kRgb = 3;
  const PngSize size = png_size(png);
  const std::string image =
      int_field(1, size.height) + int_field(2, size.width) + int_field(3, kRgb) + bytes_field(4, png);
  write(step, bytes_field(1, tag) + bytes_field(4, image));
}

std::vector<Event> read_events(const std::string& path) {
  std::vector<Event> events;
  for_each_record(path, read_file(path, ErrorKind::data),
                  [&](std::string_view, std::string_view message) { events.push_back(parse_event(message)); });
  return events;
}

void truncate_events(const std::string& path, int64_t last_step) {
  std::string kept;
  bool first = true;  // the record with the format's version belongs to no step
  for_each_record(path, read_file(path, ErrorKind::data), [&](std::string_view record, std::string_view message) {
    if (first || parse_event(message).step <= last_step) kept += record;
    first = false;
  });
  write_file_atomically(path, kept);
}

PngSize png_size(std::string_view png) {
  check_as(ErrorKind::data, png.size() >= 24 && png.substr(0, 8) == "\x89PNG\r\n\x1a\n", "png: not a PNG file");
  const auto big_endian = [&](size_t at) {
    int64_t value = 0;
    for (size_t i = at; i < at + 4; ++i) value = value << 8 | static_cast<unsigned char>(png[i]);
    return value;
  };
  return {big_endian(16), big_endian(20)};
}

}  // namespace addp
