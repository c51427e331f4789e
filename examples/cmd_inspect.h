// addp inspect PATH: what is in a weight file, in a checkpoint folder or in a run's newest checkpoint.
#pragma once
#include <iosfwd>
#include <string>

namespace addp {

// path: a safetensors file, a PyTorch checkpoint, a folder of such files (a checkpoint says whether it is complete), or
// the folder of a run. Only headers are read. Prints names, stored types, shapes, counts, sizes, metadata and totals.
// Returns the exit code. Throws Error(checkpoint) for a damaged file or a path that holds none.
int run_inspect(const std::string& path);
int run_inspect(const std::string& path, std::ostream& out);

}  // namespace addp
