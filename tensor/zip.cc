// Zip: the end record at the file's end leads to the central directory, which has the sizes (local headers may not).
#include "tensor/zip.h"

#include <algorithm>

#include "tensor/error.h"

namespace addp {
namespace {

constexpr uint64_t kMaxDirectoryBytes = 1 << 28;

uint64_t little_endian(const std::string& bytes, size_t place, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i)
    value = value << 8 | static_cast<uint8_t>(bytes.at(place + static_cast<size_t>(i)));
  return value;
}

class ZipReader {
 public:
  ZipReader(std::istream& file, const std::string& path) : file_(file), path_(path) {
    file_.clear();
    file_.seekg(0, std::ios::end);
    file_bytes_ = static_cast<uint64_t>(std::max<int64_t>(file_.tellg(), 0));
  }

  std::map<std::string, ZipEntry> directory() {
    const auto [count, bytes, begin] = end_record();
    need(bytes <= kMaxDirectoryBytes, "its directory is too large");
    const std::string text = read(begin, bytes);
    std::map<std::string, ZipEntry> entries;
    size_t place = 0;
    for (uint64_t i = 0; i < count; ++i) {
      need(place + 46 <= text.size() && text.compare(place, 4, "PK\1\2") == 0, "its directory is damaged");
      const size_t name_length = little_endian(text, place + 28, 2), extra_length = little_endian(text, place + 30, 2);
      const size_t next = place + 46 + name_length + extra_length + little_endian(text, place + 32, 2);
      need(next <= text.size(), "its directory is damaged");
      const std::string name = text.substr(place + 46, name_length);
      const ZipEntry entry = locate(text.substr(place, next - place), name_length, extra_length);
      need(entries.emplace(name, entry).second, "an entry occurs twice");
      place = next;
    }
    return entries;
  }

 private:
  struct EndRecord {
    uint64_t count, bytes, begin;
  };

  void need(bool condition, const char* what) {
    check_as(ErrorKind::checkpoint, condition, path_, ": not a usable zip archive: ", what);
  }

  std::string read(uint64_t begin, uint64_t bytes) {
    need(begin <= file_bytes_ && bytes <= file_bytes_ - begin, "it is truncated or damaged");
    std::string text(bytes, '\0');
    file_.clear();
    file_.seekg(static_cast<std::streamoff>(begin));
    need(bool(file_.read(text.data(), static_cast<std::streamsize>(bytes))), "it cannot be read");
    return text;
  }

  EndRecord end_record() {
    const uint64_t tail_bytes = std::min<uint64_t>(file_bytes_, 22 + 65535 + 20);
    const std::string tail = read(file_bytes_ - tail_bytes, tail_bytes);
    const size_t place = tail.rfind("PK\5\6");
    need(place != std::string::npos && place + 22 <= tail.size(), "its end record is missing: is it truncated?");
    EndRecord end = {little_endian(tail, place + 10, 2), little_endian(tail, place + 12, 4),
                     little_endian(tail, place + 16, 4)};
    if (end.count != 0xffff && end.bytes != 0xffffffff && end.begin != 0xffffffff) return end;
    need(place >= 20 && tail.compare(place - 20, 4, "PK\6\7") == 0, "its ZIP64 locator is missing");
    const std::string large = read(little_endian(tail, place - 12, 8), 56);
    need(large.compare(0, 4, "PK\6\6") == 0, "its ZIP64 end record is damaged");
    return {little_endian(large, 32, 8), little_endian(large, 40, 8), little_endian(large, 48, 8)};
  }

  // record: one entry of the central directory.
  ZipEntry locate(const std::string& record, size_t name_length, size_t extra_length) {
    need((little_endian(record, 8, 2) & 1) == 0, "it is encrypted");
    need(little_endian(record, 10, 2) == 0, "it is compressed; torch.save stores its entries");
    uint64_t stored = little_endian(record, 20, 4), size = little_endian(record, 24, 4),
             local = little_endian(record, 42, 4);
    const size_t extra_end = 46 + name_length + extra_length;
    for (size_t place = 46 + name_length; place + 4 <= extra_end;) {
      const size_t field_bytes = little_endian(record, place + 2, 2);
      const size_t field_end = std::min(place + 4 + field_bytes, extra_end);
      if (little_endian(record, place, 2) == 1) {  // ZIP64: those fields that did not fit, in this order
        size_t at = place + 4;
        for (uint64_t* value : {&size, &stored, &local})
          if (*value == 0xffffffff && at + 8 <= field_end) *value = little_endian(record, at, 8), at += 8;
      }
      place = field_end;
    }
    need(stored == size, "an entry's sizes differ");
    const std::string header = read(local, 30);
    need(header.compare(0, 4, "PK\3\4") == 0, "an entry's header is damaged");
    const uint64_t begin = local + 30 + little_endian(header, 26, 2) + little_endian(header, 28, 2);
    need(begin <= file_bytes_ && size <= file_bytes_ - begin, "an entry reaches beyond the file's end");
    return {static_cast<int64_t>(begin), static_cast<int64_t>(size)};
  }

  std::istream& file_;
  const std::string& path_;
  uint64_t file_bytes_ = 0;
};

}  // namespace

std::map<std::string, ZipEntry> read_zip_directory(std::istream& file, const std::string& path) {
  return ZipReader(file, path).directory();
}

}  // namespace addp
