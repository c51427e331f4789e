// Reading and writing safetensors. The header goes through a streaming JSON parser that knows the format's three
// levels, so that nothing nested, duplicated or huge is ever built in memory.
#include "tensor/safetensors.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "tensor/files.h"
#include "tensor/stored_types.h"

namespace addp {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxRank = 32;

const char* stored_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::f64:
      return "F64";
    case DType::i64:
      return "I64";
    case DType::u8:
      return "U8";
  }
  return "";
}

// ---- Header -------------------------------------------------------------------------------------------------------

// Receives the parser's events. Level 1 is the header, level 2 an entry (or the metadata), level 3 an entry's list.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& path, SafetensorsHeader& header) : path_(path), header_(header) {}

  bool start_object(size_t) override {
    if (level_ >= 2) refuse("an object where none belongs");
    if (++level_ == 2) {
      in_metadata_ = name_ == "__metadata__";
      entry_ = {};
      entry_.name = name_;
      offsets_.clear();
      fields_.clear();
    }
    return true;
  }
  bool end_object() override {
    if (level_-- == 2 && !in_metadata_) finish_entry();
    return true;
  }
  bool start_array(size_t) override {
    if (level_ != 2 || in_metadata_ || (key_ != "shape" && key_ != "data_offsets")) refuse("a list where none belongs");
    level_ = 3;
    return true;
  }
  bool end_array() override {
    level_ = 2;
    return true;
  }
  bool key(std::string& key) override {
    key_ = key;
    if (level_ == 1) {
      name_ = key;
      if (!names_.insert(key).second) refuse("the name occurs twice");
    } else {
      if (!fields_.insert(key).second) refuse("the key ", quoted(key), " occurs twice");
      if (!in_metadata_ && key != "dtype" && key != "shape" && key != "data_offsets")
        refuse("unknown key ", quoted(key));
    }
    return true;
  }
  bool string(std::string& text) override {
    if (level_ != 2 || (!in_metadata_ && key_ != "dtype")) refuse("a string where none belongs");
    if (in_metadata_) header_.metadata[key_] = text;
    else entry_.dtype = text;
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (level_ != 3) refuse("a number where none belongs");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      refuse("the number ", value, " is too large");
    if (key_ == "shape") entry_.shape.push_back(static_cast<int64_t>(value));
    else offsets_.push_back(static_cast<int64_t>(value));
    if (entry_.shape.size() > kMaxRank || offsets_.size() > 2) refuse("too many numbers in ", quoted(key_));
    return true;
  }
  bool number_integer(int64_t value) override { refuse("the negative number ", value); }
  bool number_float(double, const std::string& text) override { refuse("the number ", quoted(text), " is no integer"); }
  bool null() override { refuse("null where none belongs"); }
  bool boolean(bool) override { refuse("a truth value where none belongs"); }
  bool binary(nlohmann::json::binary_t&) override { refuse("binary data where none belongs"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail(ErrorKind::checkpoint, path_, ": the header is no valid JSON in UTF-8 (byte ", position,
         "): damaged, or not a ", "safetensors file");
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) {
    fail(ErrorKind::checkpoint, path_, ": header entry ", quoted(name_), ": ", parts...);
  }

  void finish_entry() {
    if (fields_.size() != 3) refuse("dtype, shape and data_offsets are needed");
    if (offsets_.size() != 2 || offsets_[0] > offsets_[1]) refuse("data_offsets must be [begin, end]");
    entry_.begin = offsets_[0];
    entry_.end = offsets_[1];
    int64_t bytes = stored_size(entry_.dtype);
    if (bytes == 0) refuse("unknown dtype ", quoted(entry_.dtype));
    for (int64_t extent : entry_.shape)
      if (__builtin_mul_overflow(bytes, extent, &bytes)) refuse("the shape's product overflows");
    if (bytes != entry_.end - entry_.begin)
      refuse("shape ", entry_.shape, " of ", entry_.dtype, " is ", bytes, " bytes, data_offsets span ",
             entry_.end - entry_.begin);
    header_.tensors.push_back(std::move(entry_));
  }

  const std::string& path_;
  SafetensorsHeader& header_;
  int level_ = 0;
  bool in_metadata_ = false;
  std::string name_, key_;
  TensorInfo entry_;
  std::vector<int64_t> offsets_;
  std::set<std::string> names_, fields_;
};

// Sorted by place, the tensors must cover [0, data_bytes) without overlaps or holes.
void check_coverage(const std::string& path, SafetensorsHeader& header, int64_t data_bytes) {
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  int64_t covered = 0;
  for (const TensorInfo& t : header.tensors) {
    check_as(ErrorKind::checkpoint, t.begin == covered, path, ": ", quoted(t.name), " starts at byte ", t.begin,
             " of the data, ", covered, " was expected: the tensors ", t.begin < covered ? "overlap" : "leave a hole");
    covered = t.end;
  }
  check_as(ErrorKind::checkpoint, covered == data_bytes, path, ": the tensors need ", covered,
           " bytes of data, the file holds ", data_bytes,
           covered > data_bytes ? ": it is truncated" : ": it has trailing bytes");
}

std::ifstream open_file(const std::string& path) {
  std::error_code ignored;
  check_as(ErrorKind::checkpoint, std::filesystem::exists(path, ignored), path, ": no such file");
  check_as(ErrorKind::checkpoint, std::filesystem::is_regular_file(path, ignored), path, ": is not a regular file");
  std::ifstream file(path, std::ios::binary);
  check_as(ErrorKind::checkpoint, file.is_open(), path, ": cannot be opened (", std::strerror(errno), ")");
  return file;
}

SafetensorsHeader read_header(std::ifstream& file, const std::string& path) {
  file.seekg(0, std::ios::end);
  const int64_t file_bytes = file.tellg();
  file.seekg(0);
  uint64_t length = 0;
  check_as(ErrorKind::checkpoint, file_bytes >= 10 && file.read(reinterpret_cast<char*>(&length), 8), path,
           ": is too short for a safetensors file (", file_bytes, " bytes)");
  check_as(ErrorKind::checkpoint, length <= kMaxHeaderBytes && static_cast<int64_t>(length) <= file_bytes - 8, path,
           ": claims a header of ", length, " bytes in a file of ", file_bytes,
           ": truncated, or not a safetensors file");

  std::string text(length, '\0');
  check_as(ErrorKind::checkpoint, bool(file.read(text.data(), static_cast<std::streamsize>(length))), path,
           ": the header cannot be read");
  // A zero byte would end the text for the parser and hide what follows.
  check_as(ErrorKind::checkpoint, !text.empty() && text[0] == '{' && text.find('\0') == std::string::npos, path,
           ": the header is no JSON object: damaged, or not a safetensors file");

  SafetensorsHeader header;
  header.data_begin = 8 + static_cast<int64_t>(length);
  HeaderReader reader(path, header);
  nlohmann::json::sax_parse(text, &reader);
  check_coverage(path, header, file_bytes - header.data_begin);
  return header;
}

}  // namespace

SafetensorsHeader read_safetensors_header(const std::string& path) {
  std::ifstream file = open_file(path);
  return read_header(file, path);
}

TensorFile read_safetensors(const std::string& path) {
  std::ifstream file = open_file(path);
  SafetensorsHeader header = read_header(file, path);
  TensorFile result;
  for (const TensorInfo& info : header.tensors) {
    Tensor x(info.shape, {loaded_dtype(info.dtype), Device::cpu});
    read_elements(file, info.dtype, x, path, info.name);
    result.tensors.emplace(info.name, std::move(x));
  }
  result.metadata = std::move(header.metadata);
  return result;
}

void write_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  check(!tensors.contains("__metadata__"), path, ": no tensor may be named '__metadata__'");
  std::vector<std::pair<std::string, Tensor>> order;
  for (const auto& [name, x] : tensors) {
    check(x.defined(), path, ": ", quoted(name), " is undefined");
    order.emplace_back(name, to(x, {x.dtype(), Device::cpu}));
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return dtype_size(a.second.dtype()) > dtype_size(b.second.dtype());
  });

  std::string header = "{";
  try {
    if (!metadata.empty()) header += "\"__metadata__\":" + nlohmann::json(metadata).dump();
    int64_t place = 0;
    for (const auto& [name, x] : order) {
      const std::vector<int64_t>& extents = x.shape();
      if (header.size() > 1) header += ',';
      header += nlohmann::json(name).dump() + ":{\"dtype\":\"" + stored_name(x.dtype()) +
                "\",\"shape\":" + nlohmann::json(extents).dump() + ",\"data_offsets\":[" + std::to_string(place) + ",";
      place += x.bytes();
      header += std::to_string(place) + "]}";
    }
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorKind::runtime, path, ": names and metadata must be UTF-8 (", e.what(), ")");
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  check(static_cast<int64_t>(header.size()) <= kMaxHeaderBytes, path, ": the header is too large (", header.size(),
        " bytes)");

  const uint64_t length = header.size();
  std::vector<std::string_view> pieces = {{reinterpret_cast<const char*>(&length), 8}, header};
  for (const auto& [name, x] : order)
    pieces.emplace_back(static_cast<const char*>(x.raw()), static_cast<size_t>(x.bytes()));
  write_pieces_atomically(path, pieces);
}

}  // namespace addp
