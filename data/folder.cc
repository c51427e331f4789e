// Image folders: the name of the sub-folder is the class. Only names are read on opening; each image is decoded, and
// checked, when its sample is asked for. Hidden files are passed over, other files that are no images become remarks.
#include <algorithm>
#include <filesystem>

#include "data/folder_files.h"
#include "data/image_format.h"

namespace addp {
namespace fs = std::filesystem;
namespace {

class FolderDataset : public Dataset {
 public:
  int64_t size() const override { return static_cast<int64_t>(files.size()); }
  Sample read(int64_t index) const override {
    check(index >= 0 && index < size(), name, ": there is no sample ", index, " among ", size());
    return {read_image(files[index].path), files[index].label};
  }
  int64_t label(int64_t index) const override { return files.at(index).label; }
  std::string where(int64_t index) const override { return files.at(index).path; }

  struct File {
    std::string path;
    int64_t label;
  };
  std::vector<File> files;
};

// All images in a folder and below it (links to folders are not followed), sorted. Whatever else is there goes to
// `remarks`.
std::vector<std::string> collect_images(const fs::path& folder, std::vector<Finding>& remarks) {
  std::vector<std::string> images;
  for (const fs::path& path : list_folder(folder)) {
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) {
      if (fs::is_symlink(path, ignored)) {
        remarks.push_back({path.string(), "ignored: a link to a folder"});
        continue;
      }
      const std::vector<std::string> below = collect_images(path, remarks);
      images.insert(images.end(), below.begin(), below.end());
    } else if (has_image_suffix(path.string())) {
      images.push_back(path.string());
    } else {
      remarks.push_back({path.string(), "ignored: neither .png nor .jpg"});
    }
  }
  return images;
}

std::vector<std::string> list_classes(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const fs::path& path : list_folder(folder)) {
    if (fs::is_directory(path, ignored)) names.push_back(path.filename().string());
  }
  return names;
}

void add_class(FolderDataset& dataset, const fs::path& folder, int64_t label, bool separate, Split split) {
  const std::vector<std::string> all = collect_images(folder, dataset.remarks);
  if (all.empty()) dataset.remarks.push_back({folder.string(), "a class without images"});
  for (const std::string& path : separate ? all : hold_out(all, split)) dataset.files.push_back({path, label});
}

}  // namespace

std::shared_ptr<const Dataset> open_folder(const std::string& folder, Split split) {
  const fs::path root = split_folder(folder, split);
  const bool separate = root != fs::path(folder);
  auto dataset = std::make_shared<FolderDataset>();
  dataset->name = fs::weakly_canonical(folder).filename().string();
  // The training split decides which classes there are and in what order.
  dataset->class_names = list_classes(split_folder(folder, Split::train));
  if (dataset->class_names.empty()) {
    dataset->class_names = {dataset->name};
    add_class(*dataset, root, 0, separate, split);
  } else {
    for (const fs::path& path : list_folder(root)) {
      std::error_code ignored;
      if (!fs::is_directory(path, ignored)) {
        dataset->remarks.push_back({path.string(), "ignored: lies outside the class folders"});
        continue;
      }
      const auto& names = dataset->class_names;
      const auto found = std::find(names.begin(), names.end(), path.filename().string());
      check_as(ErrorKind::data, found != names.end(), path.string(), ": this class is not among the training classes");
      add_class(*dataset, path, found - names.begin(), separate, split);
    }
  }
  check_as(ErrorKind::data, dataset->size() > 0, folder, ": has no images for the ", split_name(split),
           " split (expected: CLASS/NAME.png or .jpg, or train/CLASS/... beside test/CLASS/...",
           separate ? ")" : "; without such folders every tenth image of a class is for testing)");
  return dataset;
}

std::shared_ptr<const Dataset> open_images(const std::string& folder) {
  check_as(ErrorKind::data, fs::is_directory(folder), folder, ": no such folder");
  auto dataset = std::make_shared<FolderDataset>();
  dataset->name = fs::weakly_canonical(folder).filename().string();
  dataset->class_names = {dataset->name};
  for (const std::string& path : collect_images(folder, dataset->remarks)) dataset->files.push_back({path, 0});
  check_as(ErrorKind::data, dataset->size() > 0, folder, ": holds no images (.png or .jpg)");
  return dataset;
}

}  // namespace addp
