// Folders of images with class masks. Names are matched on opening; pixels are read, and checked, with each sample.
#include <algorithm>
#include <filesystem>
#include <sstream>

#include "data/folder_files.h"
#include "data/image_format.h"
#include "tensor/files.h"

namespace addp {
namespace fs = std::filesystem;
namespace {

class MaskFolder : public Dataset {
 public:
  int64_t size() const override { return static_cast<int64_t>(images.size()); }
  std::string where(int64_t index) const override { return images.at(static_cast<size_t>(index)); }

  Sample read(int64_t index) const override {
    check(index >= 0 && index < size(), name, ": there is no sample ", index, " among ", size());
    const std::string& mask_file = masks[static_cast<size_t>(index)];
    Sample sample{read_image(images[static_cast<size_t>(index)])};
    Image mask = read_image(mask_file);
    check_as(ErrorKind::data, mask.channels == 1, mask_file,
             ": is a colour or palette image; a mask is gray, its values are class numbers (convert palettes to gray)");
    check_as(ErrorKind::data, mask.height == sample.image.height && mask.width == sample.image.width, mask_file,
             ": is ", mask.width, "x", mask.height, ", its image is ", sample.image.width, "x", sample.image.height);
    for (uint8_t value : mask.pixels) {
      check_as(ErrorKind::data, value <= classes() || value == kUnjudged, mask_file, ": has value ", int{value},
               ", 0 to ", classes(), " are expected (classes.txt), or 255");
    }
    sample.mask = std::move(mask.pixels);
    return sample;
  }

  std::vector<std::string> images, masks;
};

std::vector<std::string> read_class_names(const std::string& path) {
  std::istringstream lines(read_file(path));
  std::vector<std::string> names;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  check_as(ErrorKind::data, !names.empty() && names.size() < kUnjudged, path, ": names ", names.size(),
           " classes; 1 to 254 are expected, one a line");
  return names;
}

}  // namespace

std::shared_ptr<const Dataset> open_mask_folder(const std::string& folder, Split split) {
  const fs::path root = split_folder(folder, split);
  std::error_code ignored;
  check_as(ErrorKind::data, fs::is_directory(root / "images", ignored) && fs::is_directory(root / "masks", ignored),
           root.string(), ": the folders images and masks are expected in it");
  auto dataset = std::make_shared<MaskFolder>();
  dataset->name = fs::weakly_canonical(folder).filename().string();
  dataset->class_names = read_class_names((fs::path(folder) / "classes.txt").string());
  dataset->has_masks = true;
  std::vector<std::string> images;
  for (const fs::path& path : list_folder(root / "images")) {
    if (has_image_suffix(path.string())) images.push_back(path.string());
    else dataset->remarks.push_back({path.string(), "ignored: neither .png nor .jpg"});
  }
  for (const std::string& image : root == fs::path(folder) ? hold_out(images, split) : images) {
    const fs::path mask = root / "masks" / (fs::path(image).stem().string() + ".png");
    check_as(ErrorKind::data, fs::is_regular_file(mask, ignored), image, ": its mask ", mask.string(), " is missing");
    dataset->images.push_back(image);
    dataset->masks.push_back(mask.string());
  }
  check_as(ErrorKind::data, dataset->size() > 0, folder, ": has no images for the ", split_name(split), " split");
  return dataset;
}

}  // namespace addp
