// What data sets in folders share: listings that do not depend on the file system, and where the splits are.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace addp {

// Entries that are not hidden, sorted. Throws Error(data) when the folder cannot be listed.
std::vector<std::filesystem::path> list_folder(const std::filesystem::path& folder);

// The folder that holds a split's data; the given one itself when it has no `train` in it.
std::filesystem::path split_folder(const std::filesystem::path& folder, Split split);

// Of files without separate folders, those of one split: every tenth is for testing.
std::vector<std::string> hold_out(const std::vector<std::string>& files, Split split);

}  // namespace addp
