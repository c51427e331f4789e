// Which kind of data set a name or a folder is.
#include "data/scenes.h"

#include <filesystem>

namespace addp {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFashionMnistFolder = "/usr/share/datasets/fashion-mnist";
constexpr int64_t kShapesTrain = 20000, kShapesTest = 2000;
constexpr int64_t kScenesTrain = 20000, kScenesTest = 1000;

bool has_idx_files(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.find("idx1-ubyte") != name.npos || name.find("idx3-ubyte") != name.npos) return true;
  }
  return false;
}

bool has_cifar_files(const fs::path& folder) {
  std::error_code ignored;
  for (const char* name : {"data_batch_1.bin", "test_batch.bin", "train.bin", "test.bin"}) {
    if (fs::exists(folder / name, ignored)) return true;
  }
  return false;
}

std::shared_ptr<const Dataset> open_fashion_mnist(Split split) {
  std::error_code ignored;
  check_as(ErrorKind::data, fs::is_directory(kFashionMnistFolder, ignored), "fashion-mnist: is not in ",
           kFashionMnistFolder,
           " (install it with: sudo apt-get install dataset-fashion-mnist; or give the folder of its four files)");
  return open_idx(kFashionMnistFolder, split);
}

}  // namespace

const char* split_name(Split split) { return split == Split::train ? "train" : "test"; }

Split parse_split(std::string_view text) {
  if (text == "train") return Split::train;
  if (text == "test") return Split::test;
  fail(ErrorKind::usage, "unknown split '", text, "': train and test are known");
}

std::shared_ptr<const Dataset> open_dataset(const std::string& spec, Split split, int64_t image_size) {
  if (spec == "shapes") return make_shapes(split == Split::train ? kShapesTrain : kShapesTest, split, image_size);
  std::error_code ignored;
  if (spec == "fashion-mnist") return open_fashion_mnist(split);
  if (spec == "scenes") {
    return make_scenes(open_fashion_mnist(split), split == Split::train ? kScenesTrain : kScenesTest, split,
                       image_size);
  }
  check_as(ErrorKind::data, fs::exists(spec, ignored), spec,
           ": no such folder, and no data set of that name (shapes, fashion-mnist and scenes are known)");
  check_as(ErrorKind::data, fs::is_directory(spec, ignored), spec, ": is a file, a folder with a data set is expected");
  if (has_idx_files(spec)) return open_idx(spec, split);
  if (has_cifar_files(spec)) return open_cifar(spec, split);
  if (fs::exists(fs::path(spec) / "classes.txt", ignored)) return open_mask_folder(spec, split);
  if (fs::is_directory(fs::path(spec) / "annotations", ignored)) return open_coco(spec, split);
  return open_folder(spec, split);
}

}  // namespace addp
