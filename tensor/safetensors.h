// The safetensors file format: named tensors and string metadata in one file (u64 header length, JSON header, data).
// Reading trusts nothing: a header that is malformed, ambiguous or that does not cover the file exactly is refused.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace addp {

// One tensor as the header describes it.
struct TensorInfo {
  std::string name;
  std::string dtype;  // as stored: BOOL U8 I8 I16 U16 F16 BF16 I32 U32 F32 F64 I64 U64
  Shape shape;
  int64_t begin = 0, end = 0;  // bytes, from the start of the data
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of the data
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;  // where the data starts in the file
};

struct TensorFile {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

// The header alone: reads 8 + N bytes, however large the file. Throws Error(checkpoint), as read_safetensors does.
SafetensorsHeader read_safetensors_header(const std::string& path);

// All tensors, on the CPU, each read straight into its own memory. F32, F64, I64 and U8 are kept; BOOL becomes u8, F16
// and BF16 f32, the other integers i64. Throws Error(checkpoint) naming the file and what is wrong with it.
TensorFile read_safetensors(const std::string& path);

// Writes atomically (files.h), data aligned, tensors by descending element size, then by name: equal contents give
// equal files. Tensors may be on any device. Throws Error(runtime) when the file cannot be written.
void write_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace addp
