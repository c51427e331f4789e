// PNG: signature, then chunks of u32 length | type | data | u32 crc32(type and data), big-endian, IHDR first, IEND
// last. JPEG: markers FF xx, most followed by a u16 length that counts itself; after SOS come entropy-coded bytes, in
// which FF is followed by 00 or by a restart marker. FF D9 ends the image; what follows it is none of our business.
#include "data/image_format.h"

#include <zlib.h>

#include <algorithm>
#include <cctype>

#include "tensor/error.h"

namespace addp {
namespace {

constexpr std::string_view kPngSignature("\x89PNG\r\n\x1a\n", 8);

int64_t byte_at(std::string_view bytes, size_t at) { return static_cast<unsigned char>(bytes[at]); }

int64_t big_endian(std::string_view bytes, size_t at, size_t count) {
  int64_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | byte_at(bytes, at + i);
  return value;
}

ImageHeader inspect_png(std::string_view bytes, const std::string& name) {
  ImageHeader header;
  size_t at = kPngSignature.size();
  for (bool first = true;; first = false) {
    check_as(ErrorKind::data, bytes.size() - at >= 12, name, ": is truncated (a PNG that stops before its IEND chunk)");
    const size_t length = static_cast<size_t>(big_endian(bytes, at, 4));
    const std::string_view type = bytes.substr(at + 4, 4);
    check_as(ErrorKind::data, bytes.size() - at - 12 >= length, name, ": is truncated (a PNG that stops inside chunk ",
             type, ")");
    const uLong crc = crc32(0, reinterpret_cast<const Bytef*>(type.data()), static_cast<uInt>(length + 4));
    check_as(ErrorKind::data, static_cast<int64_t>(crc) == big_endian(bytes, at + 8 + length, 4), name,
             ": is damaged (wrong checksum in PNG chunk at byte ", at, ")");
    check_as(ErrorKind::data, !first || (type == "IHDR" && length == 13), name,
             ": is damaged (a PNG must begin with an IHDR chunk of 13 bytes)");
    if (first) header = {big_endian(bytes, at + 12, 4), big_endian(bytes, at + 8, 4)};
    if (type == "IEND") return header;
    at += length + 12;
  }
}

// The position of the next marker's code byte; entropy-coded data and fill bytes are passed over.
size_t next_marker(std::string_view bytes, size_t at, const std::string& name) {
  for (; at + 1 < bytes.size(); ++at) {
    if (byte_at(bytes, at) != 0xFF) continue;
    const int64_t code = byte_at(bytes, at + 1);
    const bool restart = code >= 0xD0 && code <= 0xD7;
    if (code != 0x00 && code != 0xFF && !restart) return at + 1;
  }
  fail(ErrorKind::data, name, ": is truncated (a JPEG that stops before its end marker)");
}

bool is_start_of_frame(int64_t code) {
  return code >= 0xC0 && code <= 0xCF && code != 0xC4 && code != 0xC8 && code != 0xCC;
}

// Huffman tables: class and number | 16 counts of codes, by length | as many values. More than 256 codes in a table
// make the decoder write past its own.
void check_huffman_tables(std::string_view segment, const std::string& name) {
  for (size_t at = 0; at < segment.size();) {
    int64_t codes = 0;
    const bool whole = segment.size() - at >= 17;
    for (size_t i = 1; whole && i <= 16; ++i) codes += byte_at(segment, at + i);
    check_as(ErrorKind::data, whole && codes < 256, name, ": is damaged (a JPEG Huffman table is malformed)");
    at += static_cast<size_t>(17 + codes);
  }
}

ImageHeader inspect_jpeg(std::string_view bytes, const std::string& name) {
  ImageHeader header;
  bool scan_seen = false;
  size_t at = 2;
  while (true) {
    at = next_marker(bytes, at, name);
    const int64_t code = byte_at(bytes, at++);
    if (code == 0xD9) break;
    check_as(ErrorKind::data, bytes.size() - at >= 2, name, ": is truncated (a JPEG that stops inside a marker)");
    const size_t length = static_cast<size_t>(big_endian(bytes, at, 2));
    check_as(ErrorKind::data, length >= 2, name, ": is damaged (JPEG segment of length ", length, " at byte ", at, ")");
    check_as(ErrorKind::data, bytes.size() - at >= length, name, ": is truncated (a JPEG that stops inside a segment)");
    if (is_start_of_frame(code)) {
      check_as(ErrorKind::data, length >= 8, name, ": is damaged (JPEG frame header of ", length, " bytes)");
      header = {big_endian(bytes, at + 3, 2), big_endian(bytes, at + 5, 2)};
      const int64_t components = byte_at(bytes, at + 7);
      check_as(ErrorKind::data, components != 4, name,
               ": is a CMYK JPEG, RGB or gray is expected (convert it, for example with ImageMagick: mogrify "
               "-colorspace sRGB FILE)");
      check_as(ErrorKind::data, components == 1 || components == 3, name, ": has ", components,
               " colour components, 1 or 3 are expected");
    }
    if (code == 0xC4) check_huffman_tables(bytes.substr(at + 2, length - 2), name);
    scan_seen |= code == 0xDA;
    at += length;
  }
  check_as(ErrorKind::data, header.height > 0 && scan_seen, name, ": is damaged (a JPEG without picture data)");
  return header;
}

}  // namespace

ImageHeader inspect_image(std::string_view bytes, const std::string& name) {
  const bool png = bytes.starts_with(kPngSignature), jpeg = bytes.starts_with("\xFF\xD8\xFF");
  check_as(ErrorKind::data, !bytes.empty(), name, ": is empty, a PNG or JPEG picture is expected");
  check_as(ErrorKind::data, png || jpeg, name, ": is neither PNG nor JPEG (by its first bytes)");
  const ImageHeader header = png ? inspect_png(bytes, name) : inspect_jpeg(bytes, name);
  check_as(ErrorKind::data, header.height > 0 && header.width > 0, name, ": states a size of ", header.width, "x",
           header.height);
  check_as(ErrorKind::data, header.width <= kMaxImagePixels / header.height, name, ": states a size of ", header.width,
           "x", header.height, ", more than the ", kMaxImagePixels, " pixels that are accepted");
  return header;
}

bool has_image_suffix(std::string_view name) {
  std::string lower(name.substr(name.rfind('.') == name.npos ? name.size() : name.rfind('.')));
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return lower == ".png" || lower == ".jpg" || lower == ".jpeg";
}

}  // namespace addp
