// Conversions of stored elements, through a buffer of 2^16 elements where the type changes.
#include "tensor/stored_types.h"

#include <algorithm>
#include <bit>
#include <map>
#include <vector>

namespace addp {
namespace {

static_assert(std::endian::native == std::endian::little, "weight files are little-endian");

// IEEE half precision, exact; subnormals, infinities and NaN included.
float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13);
}

float brain_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

template <class From, class To, class F>
bool read_converted(std::istream& file, To* to, int64_t count, F convert) {
  std::vector<From> piece(static_cast<size_t>(std::min<int64_t>(count, 1 << 16)));
  for (int64_t done = 0; done < count;) {
    const int64_t n = std::min<int64_t>(count - done, static_cast<int64_t>(piece.size()));
    if (!file.read(reinterpret_cast<char*>(piece.data()), n * static_cast<int64_t>(sizeof(From)))) return false;
    for (int64_t i = 0; i < n; ++i) to[done + i] = convert(piece[static_cast<size_t>(i)]);
    done += n;
  }
  return true;
}

bool read_any(std::istream& file, const std::string& dtype, const Tensor& x) {
  const int64_t n = x.numel();
  const auto widen = [](auto v) { return static_cast<int64_t>(v); };
  if (dtype == "F16") return read_converted<uint16_t>(file, x.ptr<float>(), n, half_to_float);
  if (dtype == "BF16") return read_converted<uint16_t>(file, x.ptr<float>(), n, brain_to_float);
  if (dtype == "I8") return read_converted<int8_t>(file, x.ptr<int64_t>(), n, widen);
  if (dtype == "I16") return read_converted<int16_t>(file, x.ptr<int64_t>(), n, widen);
  if (dtype == "U16") return read_converted<uint16_t>(file, x.ptr<int64_t>(), n, widen);
  if (dtype == "I32") return read_converted<int32_t>(file, x.ptr<int64_t>(), n, widen);
  if (dtype == "U32") return read_converted<uint32_t>(file, x.ptr<int64_t>(), n, widen);
  if (dtype == "BOOL")
    return read_converted<uint8_t>(file, x.ptr<uint8_t>(), n, [](uint8_t v) { return uint8_t{v != 0}; });
  // F32, F64, I64, U8, and U64, whose bits are those of i64 below 2^63.
  return n == 0 || bool(file.read(static_cast<char*>(x.raw()), x.bytes()));
}

}  // namespace

int64_t stored_size(const std::string& dtype) {
  static const std::map<std::string, int64_t> sizes = {{"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"I16", 2}, {"U16", 2},
                                                       {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},
                                                       {"F64", 8},  {"I64", 8},  {"U64", 8}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? 0 : found->second;
}

DType loaded_dtype(const std::string& dtype) {
  if (dtype == "F32" || dtype == "F16" || dtype == "BF16") return DType::f32;
  if (dtype == "F64") return DType::f64;
  if (dtype == "U8" || dtype == "BOOL") return DType::u8;
  return DType::i64;
}

void read_elements(std::istream& file, const std::string& dtype, const Tensor& x, const std::string& path,
                   const std::string& name) {
  check_as(ErrorKind::checkpoint, read_any(file, dtype, x), path, ": the data of ", quoted(name),
           " cannot be read: is the file truncated?");
  if (dtype != "U64") return;
  const int64_t* p = x.ptr<int64_t>();
  check_as(ErrorKind::checkpoint, std::all_of(p, p + x.numel(), [](int64_t v) { return v >= 0; }), path, ": ",
           quoted(name), " holds numbers of 2^63 or more, which cannot be represented here");
}

std::string quoted(const std::string& name) {
  std::string text = concat_text("'", name.substr(0, 100), name.size() > 100 ? "...'" : "'");
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 32 || c == 127; }, '?');
  return text;
}

}  // namespace addp
