// Dense labels: drawn scenes, images with masks, COCO annotations, and how labels follow their image's crop and flip.
#include <algorithm>
#include <set>

#include "data/check.h"
#include "data/loader.h"
#include "data/scenes.h"
#include "tensor/files.h"
#include "tests/pictures.h"
#include "tests/scratch.h"

namespace addp {
namespace {

// Discs (class 0) and squares (class 1) on black, with a dark hole.
class Figures : public Dataset {
 public:
  Figures() {
    name = "figures";
    class_names = {"disc", "square"};
  }
  int64_t size() const override { return 20; }
  std::string where(int64_t) const override { return name; }
  Sample read(int64_t index) const override {
    Sample sample{{28, 28, 1, std::vector<uint8_t>(28 * 28, 0)}, index % 2};
    for (int64_t i = 0; i < 28 * 28; ++i) {
      const int64_t x = i % 28 - 14, y = i / 28 - 14;
      const bool inside = index % 2 ? std::max(std::abs(x), std::abs(y)) < 10 : x * x + y * y < 120;
      if (inside && x * x + y * y > 4) sample.image.pixels[static_cast<size_t>(i)] = static_cast<uint8_t>(100 + index);
    }
    return sample;
  }
};

std::shared_ptr<const Dataset> figures_scenes(Split split = Split::train, int64_t side = 64) {
  return make_scenes(std::make_shared<Figures>(), 200, split, side);
}

std::string gray_png(int64_t height, int64_t width, const std::vector<uint8_t>& pixels) {
  return encode_png({height, width, 1, pixels});
}

void put(const ScratchFolder& folder, const std::string& name, const std::string& bytes) {
  fs::create_directories(fs::path(folder / name).parent_path());
  write_file_atomically(folder / name, bytes);
}

}  // namespace

TEST_CASE("scenes: masks, boxes and labels agree; objects lie on the canvas and overlap little") {
  const auto scenes = figures_scenes();
  std::set<size_t> counts;
  for (int64_t i = 0; i < scenes->size(); ++i) {
    const Sample scene = scenes->read(i);
    REQUIRE(scene.image.pixels.size() == 64 * 64 * 3);
    REQUIRE(scene.mask.size() == 64 * 64);
    REQUIRE((scene.boxes.size() >= 1 && scene.boxes.size() <= 6));
    counts.insert(scene.boxes.size());
    CHECK(scene.label == scene.boxes[0].label);
    std::vector<int> covered(64 * 64, 0);
    for (const ObjectBox& box : scene.boxes) {
      REQUIRE((box.x0 >= 0 && box.y0 >= 0 && box.x1 <= 64 && box.y1 <= 64));
      CHECK((box.x1 - box.x0 >= 4 && box.y1 - box.y0 >= 4));
      int64_t pixels = 0;
      for (int64_t y = std::lround(box.y0); y < box.y1; ++y) {
        for (int64_t x = std::lround(box.x0); x < box.x1; ++x) {
          pixels += scene.mask[static_cast<size_t>(y * 64 + x)] == box.label + 1;
          covered[static_cast<size_t>(y * 64 + x)] = 1;
        }
      }
      CHECK(static_cast<double>(pixels) > 0.4 * box.area());
    }
    for (size_t p = 0; p < covered.size(); ++p) CHECK((covered[p] == 1 || scene.mask[p] == 0));
  }
  CHECK(counts.size() == 6);
}

TEST_CASE("scenes: deterministic, different for each index and split, drawn in any size") {
  const auto a = figures_scenes(), b = figures_scenes(), test = figures_scenes(Split::test);
  std::set<std::string> different;  // the pixels as text
  for (int64_t i = 0; i < 20; ++i) {
    const Sample scene = a->read(i), again = b->read(i);
    CHECK(scene.image.pixels == again.image.pixels);
    CHECK(scene.mask == again.mask);
    different.insert({scene.image.pixels.begin(), scene.image.pixels.end()});
    const Sample other = test->read(i);
    different.insert({other.image.pixels.begin(), other.image.pixels.end()});
  }
  CHECK(different.size() == 40);
  CHECK(figures_scenes(Split::train, 97)->read(3).mask.size() == 97 * 97);
  CHECK_THROWS_AS(figures_scenes(Split::train, 31), Error);
  CHECK_THROWS_AS(a->read(200), Error);
}

TEST_CASE("scenes: a silhouette keeps dark parts inside and drops those joined to the border") {
  // A ring with a dark middle, and a bay that opens to the border.
  const std::vector<uint8_t> pixels = {0, 9,  9,  9,  0,  //
                                       9, 90, 90, 90, 0,  //
                                       9, 90, 3,  90, 9,  //
                                       9, 90, 90, 90, 0,  //
                                       0, 90, 0,  90, 9};
  const Image found = silhouette({5, 5, 1, pixels});
  const std::vector<uint8_t> expected = {0, 0,   0,   0,   0,  //
                                         0, 255, 255, 255, 0,  //
                                         0, 255, 255, 255, 0,  //
                                         0, 255, 255, 255, 0,  //
                                         0, 255, 0,   255, 0};
  CHECK(found.pixels == expected);
  CHECK_THROWS_AS(silhouette({1, 1, 3, {0, 0, 0}}), Error);
}

TEST_CASE("scenes: of Fashion-MNIST, train and test from different files") {
  const auto train = open_dataset("scenes", Split::train, 64), test = open_dataset("scenes", Split::test, 64);
  CHECK(train->size() == 20000);
  CHECK(test->size() == 1000);
  CHECK(train->classes() == 10);
  CHECK(train->class_names[9] == "boot");
  CHECK((train->has_masks && train->has_boxes));
  CHECK(train->read(7).boxes.size() >= 1);
}

TEST_CASE("dense labels: mask and boxes follow crop, resizing and flip") {
  // The mask of a box, cropped and flipped as the box is, must be the cropped box's mask.
  std::vector<uint8_t> mask(40 * 60, 0);
  const ObjectBox box = {12, 8, 36, 28, 4};
  for (int64_t y = 8; y < 28; ++y) {
    for (int64_t x = 12; x < 36; ++x) mask[static_cast<size_t>(y * 60 + x)] = 5;
  }
  for (const Placement& placement :
       {Placement{{0, 0, 40, 60}, false}, {{0, 10, 40, 40}, false}, {{4, 8, 32, 48}, true}, {{20, 0, 20, 20}, true}}) {
    INFO(placement.box.top, " ", placement.box.left, " ", placement.flip);
    constexpr int64_t kSize = 80;
    std::vector<int64_t> target(kSize * kSize);
    place_mask(mask, 40, 60, placement, kSize, target.data());
    const std::vector<ObjectBox> placed = place_boxes({box}, placement, kSize);
    REQUIRE(placed.size() == 1);
    CHECK(placed[0].label == 4);
    for (int64_t i = 0; i < kSize * kSize; ++i) {
      const double x = static_cast<double>(i % kSize) + 0.5, y = static_cast<double>(i / kSize) + 0.5;
      const bool inside = x > placed[0].x0 && x < placed[0].x1 && y > placed[0].y0 && y < placed[0].y1;
      REQUIRE(target[static_cast<size_t>(i)] == (inside ? 5 : 0));
    }
  }
  CHECK(place_boxes({box}, {{30, 40, 10, 20}, false}, 80).empty());
}

TEST_CASE("dense labels: batches hold what their samples hold, padded as the image is") {
  const auto scenes = figures_scenes();
  LoaderOptions options;
  options.batch_size = 3;
  options.image_size = 64;
  options.shuffle = false;
  const Batch batch = BatchMaker(scenes, options).make(1);
  REQUIRE(batch.masks.shape() == Shape{3, 64, 64});
  REQUIRE(batch.boxes.size() == 3);
  const Sample scene = scenes->read(4);
  for (size_t p = 0; p < scene.mask.size(); ++p) {
    REQUIRE(batch.masks.ptr<int64_t>()[64 * 64 + p] == scene.mask[p]);
  }
  CHECK(batch.boxes[1].size() == scene.boxes.size());
  CHECK(batch.boxes[1][0].x0 == scene.boxes[0].x0);

  options.image_size = 67;  // one pixel of padding before, two after
  const Batch padded = BatchMaker(scenes, options).make(1);
  CHECK(padded.boxes[1][0].x0 == scene.boxes[0].x0 + 1);
  CHECK(padded.masks.ptr<int64_t>()[67 * 67 + 67 * 31 + 31] == scene.mask[30 * 64 + 30]);
  CHECK(padded.masks.ptr<int64_t>()[67 * 67] == 0);

  options.augmentation.flip = true;
  const Batch again = BatchMaker(scenes, options).make(1);
  CHECK(same_bits(again.masks, BatchMaker(scenes, options).make(1).masks));
}

TEST_CASE("dense labels: a folder of images and masks") {
  const ScratchFolder folder;
  const std::vector<uint8_t> pixels = {10, 20, 30, 40, 50, 60}, mask = {0, 1, 2, 255, 2, 0};
  put(folder, "classes.txt", "cat\ndog\r\n");
  for (const std::string split : {"train", "test"}) {
    put(folder, split + "/images/a.png", gray_png(2, 3, pixels));
    put(folder, split + "/masks/a.png", gray_png(2, 3, mask));
  }
  put(folder, "train/images/notes.txt", "x");
  const std::string path = folder.path.string();
  const auto open = [&] { return open_dataset(path, Split::train); };
  const auto data = open();
  CHECK(data->class_names == std::vector<std::string>{"cat", "dog"});
  CHECK(data->remarks.size() == 1);
  CHECK(data->read(0).mask == mask);
  CHECK(open_dataset(path, Split::test)->size() == 1);
  CHECK(check_dataset(path, Split::train).images == 1);

  put(folder, "train/masks/a.png", gray_png(2, 3, {0, 1, 2, 3, 2, 0}));
  check_refused([&] { open()->read(0); }, {"masks/a.png", "value 3"});
  put(folder, "train/masks/a.png", gray_png(3, 2, mask));
  check_refused([&] { open()->read(0); }, {"masks/a.png", "2x3"});
  put(folder, "train/masks/a.png", encode_png({2, 3, 3, std::vector<uint8_t>(18, 1)}));
  check_refused([&] { open()->read(0); }, {"masks/a.png", "palette"});
  fs::remove(folder / "train/masks/a.png");
  check_refused([&] { open(); }, {"a.png", "missing"});
  put(folder, "classes.txt", "\n");
  check_refused([&] { open(); }, {"classes.txt", "0 classes"});
  fs::remove_all(folder / "train/masks");
  check_refused([&] { open(); }, {"images and masks"});
}

TEST_CASE("dense labels: COCO annotations") {
  const ScratchFolder folder;
  const std::string path = folder.path.string();
  const auto annotate = [&](const std::string& images, const std::string& annotations, const std::string& categories) {
    put(folder, "annotations/instances_train2017.json",
        "{\"images\": [" + images + "], \"annotations\": [" + annotations + "], \"categories\": [" + categories + "]}");
  };
  const std::string image = R"({"id": 7, "file_name": "a.png", "height": 2, "width": 3})";
  const std::string categories = R"({"id": 90, "name": "dog"}, {"id": 3, "name": "cat"})";
  const auto box = [](const std::string& numbers, const std::string& more = "") {
    return R"({"image_id": 7, "category_id": 90, "bbox": [)" + numbers + "]" + more + "}";
  };
  put(folder, "train2017/a.png", gray_png(2, 3, {1, 2, 3, 4, 5, 6}));
  annotate(image, box("1, 0, 9, 1.5") + "," + box("0, 0, 2, 2", R"(, "iscrowd": 1)") + "," + box("9, 9, 1, 1"),
           categories);
  const auto open = [&] { return open_dataset(path, Split::train); };
  const auto data = open();
  CHECK(data->class_names == std::vector<std::string>{"cat", "dog"});
  CHECK(data->remarks.size() == 1);
  CHECK(data->has_boxes);
  const Sample sample = data->read(0);
  REQUIRE(sample.boxes.size() == 1);
  CHECK(sample.boxes[0].label == 1);
  CHECK(sample.boxes[0].x1 == 3);
  CHECK(sample.boxes[0].y1 == 1.5);

  const auto refuse = [&](const std::string& images, const std::string& annotations, const std::string& reason) {
    annotate(images, annotations, categories);
    check_refused([&] { open()->read(0); }, {"a", reason});
  };
  refuse(R"({"id": 7, "file_name": "../a.png", "height": 2, "width": 3})", "", "outside");
  refuse(R"({"id": 7, "file_name": "/etc/a.png", "height": 2, "width": 3})", "", "outside");
  refuse(R"({"id": 7, "file_name": "b/../../a.png", "height": 2, "width": 3})", "", "outside");
  refuse(R"({"id": 7, "file_name": "a.png", "height": -2, "width": 3})", "", "size");
  refuse(R"({"id": 7.5, "file_name": "a.png", "height": 2, "width": 3})", "", "'id'");
  refuse(R"({"id": 7, "file_name": "a.png", "height": 4, "width": 3})", "", "3x2");
  refuse(image + "," + image, "", "another one");
  refuse("3", "", "file_name");
  refuse(image, "3", "image_id");
  refuse(image, box("1, 2, 3"), "four numbers");
  refuse(image, box("1, 2, 3, \"4\""), "four numbers");
  refuse(image, box("1, 2, 3, -4"), "negative");
  refuse(image, box("1, 2, 3, 1e300"), "bbox");
  refuse(image, R"({"image_id": 8, "category_id": 90, "bbox": [0, 0, 1, 1]})", "no image");
  refuse(image, R"({"image_id": 7, "category_id": 91, "bbox": [0, 0, 1, 1]})", "no category");
  refuse("", "", "no images");
  put(folder, "annotations/instances_train2017.json", "{\"images\": ");
  check_refused([&] { open(); }, {"instances_train2017.json", "no JSON object"});
  put(folder, "annotations/instances_train2017.json", "{\"images\": 1}");
  check_refused([&] { open(); }, {"instances_train2017.json", "no list"});
  check_refused([&] { open_dataset(path, Split::test); }, {"instances_val"});
}

}  // namespace addp
