// Element types as weight files store them, named as in safetensors, and their way into a Tensor.
#pragma once
#include <istream>
#include <string>

#include "tensor/tensor.h"

namespace addp {

// Bytes of one stored element: BOOL U8 I8 I16 U16 F16 BF16 I32 U32 F32 F64 I64 U64; 0 for any other name.
int64_t stored_size(const std::string& dtype);

// What such elements become here: F32, F64, I64 and U8 are kept, BOOL is u8, F16 and BF16 f32, other integers i64.
DType loaded_dtype(const std::string& dtype);

// Reads x.numel() little-endian elements from the file's present position into x (of loaded_dtype, on the CPU), in
// place or through a small buffer. Throws Error(checkpoint) with path and name when the file ends early, or when a U64
// does not fit into i64.
void read_elements(std::istream& file, const std::string& dtype, const Tensor& x, const std::string& path,
                   const std::string& name);

// A name out of a file, made fit for a message: quoted, shortened, without control characters.
std::string quoted(const std::string& name);

}  // namespace addp
