// "did you mean ...?": the known name nearest to a mistyped one.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace addp {

// Insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal string alignment distance).
int edit_distance(std::string_view a, std::string_view b);

// The nearest candidate (the first on ties), or "" when none is near: more than a third of the name wrong.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

// unknown_name("option", "--stesp", known): `unknown option --stesp (did you mean --steps?)`
std::string unknown_name(std::string_view what, std::string_view name, const std::vector<std::string>& candidates);

}  // namespace addp
