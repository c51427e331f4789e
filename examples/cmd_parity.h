// addp parity DIR: this library against reference data that the official implementation computed.
#pragma once
#include <iosfwd>
#include <string>

#include "examples/options.h"
#include "tensor/tensor.h"

namespace addp {

// Reads a folder with the layout of tests/golden, takes all sizes from the files' metadata and tensor shapes, runs the
// same computations in float64 and in float32 and prints for each file and tensor the largest error relative to the
// tensor's largest entry, then `parity: N tensors, worst f64 E (name), worst f32 E (name)`.
// One computation is not float32 throughout: gan_expected's float32 run evaluates its losses at the reference's
// reconstruction with the LPIPS network in float64, and says so in a note; all in float32, a ReLU of that network on
// the other side of 0 changes the gradients by about 1e-3. Returns 0, or 7 when an error exceeds 1e-6 in float64 or
// 1e-4 in float32, is not a number, or when codes or masks are not exactly equal. Throws Error(data) that names a
// missing or misshapen file or tensor.
int run_parity(const std::string& folder, const CommonOptions& options);
int run_parity(const std::string& folder, std::ostream& out, Device device = Device::cpu);

}  // namespace addp
