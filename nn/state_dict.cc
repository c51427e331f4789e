// Comparing names and shapes, and the text that says what does not fit.
#include "nn/state_dict.h"

#include <algorithm>
#include <set>

namespace addp {

std::vector<NamedVar> check_unique_names(std::vector<NamedVar> entries) {
  std::set<std::string> names;
  for (const NamedVar& entry : entries) {
    check(names.insert(entry.name).second, "state dict: the name '", entry.name, "' occurs twice in a module");
  }
  return entries;
}

static std::string list_names(const char* what, const std::vector<std::string>& names, size_t limit) {
  if (names.empty()) return "";
  std::string text = concat_text("\n  ", names.size(), " ", what, ":");
  for (size_t i = 0; i < std::min(names.size(), limit); ++i) text += (i > 0 ? ", " : " ") + names[i];
  return names.size() > limit ? concat_text(text, ", and ", names.size() - limit, " more") : text;
}

std::string LoadReport::text(size_t limit) const {
  return list_names("misshapen", misshapen, limit) + list_names("missing", missing, limit) +
         list_names("unexpected", unexpected, limit);
}

static bool is_ignored(const std::string& name) {
  constexpr std::string_view kEnding = "num_batches_tracked";
  return name.size() >= kEnding.size() && name.compare(name.size() - kEnding.size(), kEnding.size(), kEnding) == 0;
}

static LoadReport compare(const std::vector<NamedVar>& entries, const StateDict& state) {
  LoadReport report;
  std::set<std::string> known;
  for (const auto& [name, var] : entries) {
    known.insert(name);
    const auto found = state.find(name);
    if (found == state.end()) {
      report.missing.push_back(name);
    } else if (found->second.shape() != var.shape()) {
      report.misshapen.push_back(
          concat_text("'", name, "' is ", found->second.shape(), ", this model needs ", var.shape()));
    } else {
      report.loaded.push_back(name);
    }
  }
  for (const auto& [name, tensor] : state) {
    if (!known.count(name) && !is_ignored(name)) report.unexpected.push_back(name);
  }
  return report;
}

LoadReport load_state_dict(const std::vector<NamedVar>& entries, const StateDict& state, const LoadOptions& options) {
  LoadReport report = compare(entries, state);
  const bool names_fit = options.lenient || (report.missing.empty() && report.unexpected.empty());
  if (!report.misshapen.empty() || !names_fit) {
    // One finding fits the first line; several are listed below it.
    const bool single = report.misshapen.size() == 1 && report.missing.empty() && report.unexpected.empty();
    fail(ErrorKind::checkpoint, options.source, ": ",
         single ? report.misshapen[0] : std::string("does not fit this model"), ": was it trained with another preset?",
         single ? std::string() : report.text());
  }
  check_as(ErrorKind::checkpoint, entries.empty() || !report.loaded.empty(), options.source,
           ": holds none of this model's tensors: is it a checkpoint of another model?", report.text());
  for (const auto& [name, var] : entries) {
    const auto found = state.find(name);
    if (found != state.end()) copy_into(var.value(), found->second);
  }
  return report;
}

StateDict with_prefix_removed(const StateDict& state, const std::string& prefix) {
  StateDict part;
  for (const auto& [name, tensor] : state) {
    if (name.compare(0, prefix.size(), prefix) == 0) part[name.substr(prefix.size())] = tensor;
  }
  return part;
}

}  // namespace addp
