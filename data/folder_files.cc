#include "data/folder_files.h"

#include <algorithm>

namespace addp {
namespace fs = std::filesystem;

static bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

std::vector<fs::path> list_folder(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> entries;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (!is_hidden(it->path())) entries.push_back(it->path());
  }
  check_as(ErrorKind::data, !error, folder.string(), ": cannot be listed (", error.message(), ")");
  std::sort(entries.begin(), entries.end());
  return entries;
}

fs::path split_folder(const fs::path& folder, Split split) {
  std::error_code ignored;
  if (!fs::is_directory(folder / "train", ignored)) return folder;
  if (split == Split::train) return folder / "train";
  for (const char* name : {"test", "val"}) {
    if (fs::is_directory(folder / name, ignored)) return folder / name;
  }
  fail(ErrorKind::data, folder.string(), ": has a sub-folder train, but neither test nor val");
}

constexpr size_t kHoldOut = 10;

std::vector<std::string> hold_out(const std::vector<std::string>& files, Split split) {
  std::vector<std::string> chosen;
  for (size_t i = 0; i < files.size(); ++i) {
    if ((i % kHoldOut == kHoldOut - 1) == (split == Split::test)) chosen.push_back(files[i]);
  }
  return chosen;
}

}  // namespace addp
