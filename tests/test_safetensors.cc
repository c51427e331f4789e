// safetensors: round trips, stored types, and every kind of header that must be refused.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "tensor/files.h"
#include "tensor/random.h"
#include "tensor/safetensors.h"

using namespace addp;

namespace {

struct TemporaryFile {
  std::string path = (std::filesystem::temp_directory_path() / concat_text("addp_safetensors_", this)).string();
  ~TemporaryFile() { std::filesystem::remove(path); }
};

std::string file_bytes(const std::string& header, const std::string& data) {
  const uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + data;
}

// The message of the refusal; fails the test when the file is accepted or another kind of error is thrown.
std::string refusal(const std::string& bytes) {
  TemporaryFile file;
  write_file_atomically(file.path, bytes);
  try {
    read_safetensors(file.path);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::checkpoint);
    CHECK(std::string(e.what()).find(file.path) == 0);
    return e.what();
  }
  FAIL_CHECK("accepted: ", bytes);
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

template <class T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace

TEST_CASE("safetensors: round trip") {
  TemporaryFile file;
  Rng rng(1);
  const std::map<std::string, Tensor> tensors = {{"a.weight", rng.normal({3, 5})},
                                                 {"b", rng.normal({7}, {DType::f64})},
                                                 {"codes", from_vector<int64_t>({1, -2, 3}, {3, 1})},
                                                 {"bytes", from_vector<uint8_t>({1, 2, 255}, {3})},
                                                 {"scalar", full({}, 2.5)},
                                                 {"empty", zeros({0, 4})},
                                                 {"quoted \"name\" \\ \n\xc3\xa9", zeros({1})}};
  const std::map<std::string, std::string> metadata = {{"step", "12"}, {"config", "{\"a\": \"b\"}\n"}};
  write_safetensors(file.path, tensors, metadata);

  const TensorFile read = read_safetensors(file.path);
  CHECK(read.metadata == metadata);
  REQUIRE(read.tensors.size() == tensors.size());
  for (const auto& [name, x] : tensors) CHECK(same_bits(read.tensors.at(name), x));

  const SafetensorsHeader header = read_safetensors_header(file.path);
  CHECK(header.data_begin % 8 == 0);
  CHECK(header.tensors.front().begin == 0);
  for (const TensorInfo& t : header.tensors)
    if (t.dtype == "F64" || t.dtype == "I64") CHECK(t.begin % 8 == 0);

  const std::string first = read_file(file.path);
  write_safetensors(file.path, read.tensors, read.metadata);
  CHECK(read_file(file.path) == first);

  write_safetensors(file.path, {});
  CHECK(read_safetensors(file.path).tensors.empty());
}

TEST_CASE("safetensors: stored types are converted") {
  const auto read_one = [](const std::string& dtype, int64_t n, const std::string& data) {
    TemporaryFile file;
    write_file_atomically(file.path, file_bytes(concat_text("{\"x\":{\"dtype\":\"", dtype, "\",\"shape\":[", n,
                                                            "],\"data_offsets\":[0,", data.size(), "]}}"),
                                                data));
    return read_safetensors(file.path).tensors.at("x");
  };
  const std::vector<uint16_t> halves = {0x3c00, 0xc000, 0x0001, 0x8000, 0x7bff, 0x7c00, 0x7e00, 0x0400};
  const std::vector<float> h = to_vector<float>(read_one("F16", 8, raw(halves)));
  CHECK(h[0] == 1.0f);
  CHECK(h[1] == -2.0f);
  CHECK(h[2] == 0x1p-24f);
  CHECK((h[3] == 0.0f && std::signbit(h[3])));
  CHECK(h[4] == 65504.0f);
  CHECK(std::isinf(h[5]));
  CHECK(std::isnan(h[6]));
  CHECK(h[7] == 0x1p-14f);
  CHECK(to_vector<float>(read_one("BF16", 2, raw(std::vector<uint16_t>{0x3f80, 0xc040}))) == std::vector{1.0f, -3.0f});
  using Integers = std::vector<int64_t>;
  CHECK(to_vector<int64_t>(read_one("I8", 2, raw(std::vector<int8_t>{-3, 4}))) == Integers{-3, 4});
  CHECK(to_vector<int64_t>(read_one("I16", 2, raw(std::vector<int16_t>{-300, 4}))) == Integers{-300, 4});
  CHECK(to_vector<int64_t>(read_one("U16", 1, raw(std::vector<uint16_t>{65535}))) == Integers{65535});
  CHECK(to_vector<int64_t>(read_one("I32", 2, raw(std::vector<int32_t>{-70000, 4}))) == Integers{-70000, 4});
  CHECK(to_vector<int64_t>(read_one("U32", 1, raw(std::vector<uint32_t>{0xffffffffu}))) == Integers{0xffffffff});
  CHECK(to_vector<int64_t>(read_one("U64", 1, raw(std::vector<uint64_t>{77}))) == Integers{77});
  CHECK_THROWS_AS(read_one("U64", 1, raw(std::vector<uint64_t>{1ull << 63})), Error);
  const Tensor truth = read_one("BOOL", 3, raw(std::vector<uint8_t>{0, 1, 7}));
  CHECK(truth.dtype() == DType::u8);
  CHECK(to_vector<uint8_t>(truth) == std::vector<uint8_t>{0, 1, 1});
}

TEST_CASE("safetensors: hostile files are refused") {
  const std::string one = "\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", data(8, '\1');
  const auto entry = [](const std::string& shape, const std::string& offsets, const std::string& dtype = "\"F32\"") {
    return "{\"x\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  };
  const auto two = [](const std::string& a, const std::string& b) {
    return "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" + a +
           "},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" + b + "}}";
  };
  // Size of the header and of the file.
  CHECK(contains(refusal(""), "too short"));
  CHECK(contains(refusal("abc"), "too short"));
  const uint64_t huge = 100'000'001, absurd = ~0ull;
  CHECK(contains(refusal(std::string(reinterpret_cast<const char*>(&huge), 8) + "{}"), "claims a header"));
  CHECK(contains(refusal(std::string(reinterpret_cast<const char*>(&absurd), 8) + "{}"), "claims a header"));
  CHECK(contains(refusal(file_bytes("{" + one + "}", data).substr(0, 30)), "claims a header"));
  CHECK(contains(refusal(file_bytes("{" + one + "}", "1234567")), "truncated"));
  CHECK(contains(refusal(file_bytes("{" + one + "}", data + "x")), "trailing"));
  // Not the JSON that was expected.
  CHECK(contains(refusal(file_bytes("[]", "")), "no JSON object"));
  CHECK(contains(refusal(file_bytes(" {}", "")), "no JSON object"));
  CHECK(contains(refusal(file_bytes(std::string("{}\0x", 4), "")), "no JSON object"));
  CHECK(contains(refusal(file_bytes("{" + one, data)), "no valid JSON"));
  CHECK(contains(refusal(file_bytes("{" + one + "}}", data)), "no valid JSON"));
  CHECK(contains(refusal(file_bytes("{\"\xff\xfe\":" + one.substr(4) + "}", data)), "no valid JSON"));
  CHECK(contains(refusal(file_bytes("{\"x\":" + std::string(1'000'000, '['), "")), "list"));
  std::string bomb;
  for (int i = 0; i < 100'000; ++i) bomb += "{\"x\":";
  CHECK(contains(refusal(file_bytes(bomb, "")), "unknown key"));
  CHECK(contains(refusal(file_bytes("{\"x\":1}", "")), "number"));
  CHECK(contains(refusal(file_bytes("{\"x\":null}", "")), "null"));
  CHECK(contains(refusal(file_bytes("{\"x\":true}", "")), "truth value"));
  CHECK(contains(refusal(file_bytes("{\"x\":\"y\"}", "")), "string"));
  CHECK(contains(refusal(file_bytes("{\"x\":{}}", "")), "are needed"));
  CHECK(contains(refusal(file_bytes("{\"x\":{\"dtype\":\"F32\",\"shape\":[2]}}", data)), "are needed"));
  CHECK(contains(refusal(file_bytes("{\"x\":{\"dtype\":\"F32\",\"extra\":[2]}}", data)), "unknown key"));
  CHECK(contains(refusal(file_bytes("{\"__metadata__\":{\"a\":1}}", "")), "number"));
  CHECK(contains(refusal(file_bytes("{\"__metadata__\":{\"a\":{}}}", "")), "object"));
  // Duplicates.
  CHECK(contains(refusal(file_bytes("{" + one + "," + one + "}", data)), "twice"));
  CHECK(contains(refusal(file_bytes("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", "")), "twice"));
  CHECK(contains(refusal(file_bytes("{\"x\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", "")), "twice"));
  // Numbers and sizes.
  CHECK(contains(refusal(file_bytes(entry("[-2]", "[0,8]"), data)), "negative"));
  CHECK(contains(refusal(file_bytes(entry("[2.0]", "[0,8]"), data)), "no integer"));
  CHECK(contains(refusal(file_bytes(entry("[2e0]", "[0,8]"), data)), "no integer"));
  CHECK(contains(refusal(file_bytes(entry("[\"2\"]", "[0,8]"), data)), "string"));
  CHECK(contains(refusal(file_bytes(entry("[[2]]", "[0,8]"), data)), "list"));
  CHECK(contains(refusal(file_bytes(entry("[3]", "[0,8]"), data)), "12 bytes"));
  CHECK(contains(refusal(file_bytes(entry("[2]", "[0]"), data)), "[begin, end]"));
  CHECK(contains(refusal(file_bytes(entry("[2]", "[8,0]"), data)), "[begin, end]"));
  CHECK(contains(refusal(file_bytes(entry("[2]", "[0,4,8]"), data)), "too many"));
  CHECK(contains(refusal(file_bytes(entry("[2]", "[0,8]", "\"F31\""), data)), "unknown dtype"));
  CHECK(contains(refusal(file_bytes(entry("[4294967296,4294967296]", "[0,8]"), data)), "overflows"));
  CHECK(contains(refusal(file_bytes(entry("[9223372036854775807]", "[0,8]"), data)), "overflows"));
  CHECK(contains(refusal(file_bytes(entry("[9223372036854775808]", "[0,8]"), data)), "too large"));
  CHECK(contains(refusal(file_bytes(entry("[99999999999999999999999]", "[0,8]"), data)), "no integer"));
  CHECK(contains(refusal(file_bytes(entry("[2]", "[18446744073709551608,18446744073709551616]"), data)), "large"));
  // Coverage.
  CHECK(contains(refusal(file_bytes(two("[0,4]", "[0,4]"), "1234")), "overlap"));
  CHECK(contains(refusal(file_bytes(two("[0,4]", "[2,6]"), "123456")), "overlap"));
  CHECK(contains(refusal(file_bytes(two("[0,4]", "[5,9]"), "123456789")), "hole"));
  CHECK(contains(refusal(file_bytes(two("[1,5]", "[5,9]"), "123456789")), "hole"));
  CHECK_THROWS_AS(read_safetensors("/"), Error);
  CHECK_THROWS_AS(read_safetensors("no/such/file"), Error);
}

TEST_CASE("safetensors: damaged headers never crash") {
  TemporaryFile file;
  Rng rng(7);
  write_safetensors(file.path, {{"a", zeros({2, 3})}, {"b", zeros({4}, {DType::f64})}, {"c", zeros({}, {DType::i64})}},
                    {{"k", "v"}});
  const std::string good = read_file(file.path);
  const std::string interesting = "{}[]\",:0123456789-.eE \\\xff\x80\n";
  int refused = 0;
  for (int round = 0; round < 400; ++round) {
    std::string bytes = good;
    for (int64_t k = rng.below(4); k >= 0; --k) {
      const auto place = static_cast<size_t>(rng.below(static_cast<int64_t>(bytes.size())));
      const char c = interesting[static_cast<size_t>(rng.below(static_cast<int64_t>(interesting.size())))];
      switch (rng.below(4)) {
        case 0:
          bytes[place] = c;
          break;
        case 1:
          bytes.insert(place, 1, c);
          break;
        case 2:
          bytes.erase(place, static_cast<size_t>(1 + rng.below(9)));
          break;
        default:
          bytes[place] = static_cast<char>(bytes[place] ^ (1 << rng.below(8)));
      }
      if (bytes.empty()) bytes.push_back(c);
    }
    write_file_atomically(file.path, bytes);
    try {
      read_safetensors(file.path);
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::checkpoint);
      ++refused;
    }
  }
  CHECK(refused > 200);
}
