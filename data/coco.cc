// COCO's object annotations. The file is hostile until checked: every number and reference that is used is looked at,
// and names of image files may not lead out of their folder.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "data/folder_files.h"
#include "tensor/files.h"

namespace addp {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::json;

class CocoDataset : public Dataset {
 public:
  struct Picture {
    std::string path;
    int64_t height, width;
    std::vector<ObjectBox> boxes;
  };

  int64_t size() const override { return static_cast<int64_t>(pictures.size()); }
  std::string where(int64_t index) const override { return pictures.at(static_cast<size_t>(index)).path; }

  Sample read(int64_t index) const override {
    check(index >= 0 && index < size(), name, ": there is no sample ", index, " among ", size());
    const Picture& picture = pictures[static_cast<size_t>(index)];
    Sample sample{read_image(picture.path)};
    check_as(ErrorKind::data, sample.image.height == picture.height && sample.image.width == picture.width,
             picture.path, ": is ", sample.image.width, "x", sample.image.height, ", its annotations say ",
             picture.width, "x", picture.height);
    sample.boxes = picture.boxes;
    return sample;
  }

  std::vector<Picture> pictures;
};

// One annotation file, checked piece by piece.
class CocoReader {
 public:
  CocoReader(std::string path, fs::path image_folder) : path_(std::move(path)), folder_(std::move(image_folder)) {
    json_ = Json::parse(read_file(path_), nullptr, false);
    require(json_.is_object(), "is no JSON object");
  }

  void read_into(CocoDataset& dataset) {
    read_categories(dataset);
    read_images(dataset);
    read_annotations(dataset);
  }

 private:
  template <class... Parts>
  void require(bool ok, const Parts&... parts) const {
    check_as(ErrorKind::data, ok, path_, ": ", parts...);
  }

  const Json& list(const char* key) const {
    const auto found = json_.find(key);
    require(found != json_.end() && found->is_array(), "has no list '", key, "'");
    return *found;
  }

  int64_t integer(const Json& entry, const char* key, const std::string& what) const {
    const auto found = entry.is_object() ? entry.find(key) : entry.end();
    require(entry.is_object() && found != entry.end() && found->is_number_integer(), what, " has no whole number '",
            key, "'");
    return found->get<int64_t>();
  }

  std::string text(const Json& entry, const char* key, const std::string& what) const {
    const auto found = entry.is_object() ? entry.find(key) : entry.end();
    require(entry.is_object() && found != entry.end() && found->is_string(), what, " has no text '", key, "'");
    return found->get<std::string>();
  }

  void read_categories(CocoDataset& dataset) {
    std::map<int64_t, std::string> by_id;
    for (const Json& entry : list("categories")) {
      const std::string name = text(entry, "name", "a category");
      require(by_id.emplace(integer(entry, "id", "category '" + name + "'"), name).second, "category '", name,
              "' has an id that another one has");
    }
    require(!by_id.empty(), "has no categories");
    for (const auto& [id, name] : by_id) {
      categories_[id] = static_cast<int64_t>(dataset.class_names.size());
      dataset.class_names.push_back(name);
    }
  }

  void read_images(CocoDataset& dataset) {
    constexpr int64_t kMaxSide = 1 << 20;
    for (const Json& entry : list("images")) {
      const std::string file = text(entry, "file_name", "an image"), what = "image '" + file + "'";
      const fs::path relative = fs::path(file).lexically_normal();
      require(!file.empty() && relative.is_relative() && *relative.begin() != "..", what,
              " lies outside of its folder");
      const int64_t height = integer(entry, "height", what), width = integer(entry, "width", what);
      require(height > 0 && width > 0 && height <= kMaxSide && width <= kMaxSide, what, " states a size of ", width,
              "x", height);
      require(images_.emplace(integer(entry, "id", what), dataset.pictures.size()).second, what,
              " has an id that another one has");
      dataset.pictures.push_back({(folder_ / relative).string(), height, width, {}});
    }
  }

  void read_annotations(CocoDataset& dataset) {
    int64_t outside = 0;
    for (const Json& entry : list("annotations")) {
      const int64_t id = integer(entry, "image_id", "an annotation");
      const std::string what = concat_text("an annotation of image ", id);
      const auto image = images_.find(id);
      require(image != images_.end(), what, ": there is no image of that id");
      const auto category = categories_.find(integer(entry, "category_id", what));
      require(category != categories_.end(), what, ": there is no category of its category_id");
      if (entry.contains("iscrowd") && integer(entry, "iscrowd", what) != 0) continue;
      CocoDataset::Picture& picture = dataset.pictures[image->second];
      const ObjectBox box = clipped(read_box(entry, what), picture);
      if (box.x1 > box.x0 && box.y1 > box.y0) {
        picture.boxes.push_back({box.x0, box.y0, box.x1, box.y1, category->second});
      } else {
        ++outside;
      }
    }
    if (outside > 0) dataset.remarks.push_back({path_, concat_text(outside, " empty boxes are left out")});
  }

  // [x, y, width, height]
  ObjectBox read_box(const Json& entry, const std::string& what) const {
    const auto found = entry.find("bbox");
    require(found != entry.end() && found->is_array() && found->size() == 4, what, " has no 'bbox' of four numbers");
    double v[4];
    for (size_t i = 0; i < 4; ++i) {
      require((*found)[i].is_number(), what, " has no 'bbox' of four numbers");
      v[i] = (*found)[i].get<double>();
      require(std::isfinite(v[i]) && std::abs(v[i]) < 1e9, what, " has a 'bbox' with ", v[i]);
    }
    require(v[2] >= 0 && v[3] >= 0, what, " has a 'bbox' of negative size");
    return {v[0], v[1], v[0] + v[2], v[1] + v[3], 0};
  }

  static ObjectBox clipped(const ObjectBox& box, const CocoDataset::Picture& picture) {
    const double width = static_cast<double>(picture.width), height = static_cast<double>(picture.height);
    return {std::clamp(box.x0, 0.0, width), std::clamp(box.y0, 0.0, height), std::clamp(box.x1, 0.0, width),
            std::clamp(box.y1, 0.0, height), 0};
  }

  std::string path_;
  fs::path folder_;
  Json json_;
  std::map<int64_t, int64_t> categories_;  // id -> class
  std::map<int64_t, size_t> images_;       // id -> place in pictures
};

// NAME of annotations/instances_NAME.json.
std::string find_annotations(const fs::path& folder, Split split) {
  const std::vector<std::string> beginnings =
      split == Split::train ? std::vector<std::string>{"train"} : std::vector<std::string>{"val", "test"};
  for (const std::string& beginning : beginnings) {
    for (const fs::path& path : list_folder(folder / "annotations")) {
      const std::string stem = path.stem().string();
      if (path.extension() == ".json" && stem.starts_with("instances_" + beginning)) return stem.substr(10);
    }
  }
  fail(ErrorKind::data, folder.string(), ": has no annotations/instances_", beginnings[0],
       "*.json beside a folder of that name with its images");
}

}  // namespace

std::shared_ptr<const Dataset> open_coco(const std::string& folder, Split split) {
  const std::string part = find_annotations(folder, split);
  const fs::path images = fs::path(folder) / part;
  std::error_code ignored;
  check_as(ErrorKind::data, fs::is_directory(images, ignored), images.string(),
           ": the folder of the images is missing");
  auto dataset = std::make_shared<CocoDataset>();
  dataset->name = fs::weakly_canonical(folder).filename().string();
  dataset->has_boxes = true;
  CocoReader((fs::path(folder) / "annotations" / ("instances_" + part + ".json")).string(), images).read_into(*dataset);
  check_as(ErrorKind::data, dataset->size() > 0, folder, ": has no images for the ", split_name(split), " split");
  return dataset;
}

}  // namespace addp
