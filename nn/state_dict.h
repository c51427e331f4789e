// A module's tensors by name, out and in. Loading compares every name and shape first and reports all that is wrong at
// once; nothing is copied unless it may be. File formats are in tensor/.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "nn/module.h"

namespace addp {

using StateDict = std::map<std::string, Tensor>;

struct LoadOptions {
  std::string source = "state dict";  // the file's name, for messages
  // Lenient: tensors may be missing (they keep their values) or unexpected (they are not read), e.g. a pre-trained
  // encoder for a classifier. Wrong shapes are errors in either mode.
  bool lenient = false;
};

struct LoadReport {
  std::vector<std::string> loaded, missing, unexpected;
  std::vector<std::string> misshapen;  // "'pos_embed' is [1, 257, 768], this model needs [1, 65, 192]"

  // All findings as one text of at most `limit` names a kind; empty when there are none.
  std::string text(size_t limit = 12) const;
};

// What a module holds under each name, in visiting order.
std::vector<NamedVar> check_unique_names(std::vector<NamedVar> entries);
template <class Module>
std::vector<NamedVar> tensors(Module& module, const std::string& prefix = "") {
  std::vector<NamedVar> entries;
  module.visit(prefix, [&](const std::string& name, Var& var, Role) { entries.push_back({name, var}); });
  return check_unique_names(std::move(entries));
}

// Parameters and buffers; the tensors share the module's memory (clone() what must not change).
template <class Module>
StateDict state_dict(Module& module, const std::string& prefix = "") {
  StateDict state;
  for (const NamedVar& entry : tensors(module, prefix)) state[entry.name] = entry.var.value();
  return state;
}

// Copies values into the entries; dtypes and devices may differ. Throws Error(checkpoint) that lists every missing,
// unexpected and misshapen name (see LoadOptions); then nothing has been copied. BatchNorm's num_batches_tracked, which
// no module here keeps, is never unexpected.
LoadReport load_state_dict(const std::vector<NamedVar>& entries, const StateDict& state,
                           const LoadOptions& options = {});
template <class Module>
LoadReport load_state_dict(Module& module, const StateDict& state, const LoadOptions& options = {},
                           const std::string& prefix = "") {
  return load_state_dict(tensors(module, prefix), state, options);
}

// The entries whose name begins with `prefix`, without it: one model out of a file of several.
StateDict with_prefix_removed(const StateDict& state, const std::string& prefix);

}  // namespace addp
