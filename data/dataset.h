// Data sets: numbered images with labels. open_dataset finds out which kind a name or a folder is; each kind has its
// own file (data/idx.cc, cifar.cc, folder.cc, shapes.cc). Files are hostile until checked: sizes that they state are
// compared with what is there before memory is spent on them.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/image.h"
#include "tensor/boxes.h"

namespace addp {

enum class Split { train, test };
const char* split_name(Split split);
// "train" or "test"; throws Error(usage) for anything else.
Split parse_split(std::string_view text);

// Pixels of class masks: 0 is background, c + 1 is class c.
inline constexpr uint8_t kUnjudged = 255;  // neither learned nor counted

struct Sample {
  Image image;
  int64_t label = 0;                  // in [0, classes)
  std::vector<uint8_t> mask = {};     // one class a pixel, row by row; empty where the data set has none
  std::vector<ObjectBox> boxes = {};  // in any order
};

// Something wrong or odd, and where.
struct Finding {
  std::string path, reason;
};

// Immutable after opening: any thread may read.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  // Throws Error(data), which names the file, when the image cannot be read.
  virtual Sample read(int64_t index) const = 0;
  // A sample's label; cheap where the image need not be read for it.
  virtual int64_t label(int64_t index) const { return read(index).label; }
  // The file, and the place in it, that a sample comes from.
  virtual std::string where(int64_t index) const = 0;
  int64_t classes() const { return static_cast<int64_t>(class_names.size()); }

  std::string name;
  std::vector<std::string> class_names;
  bool has_masks = false, has_boxes = false;  // what every sample comes with
  std::vector<Finding> remarks;               // odd, but no reason to refuse; `addp data check` shows them
};

// spec: "shapes", "fashion-mnist" (where Debian's package puts it), "scenes" (drawn from it), or a folder, whose kind
// is recognised: IDX files, CIFAR-10 or CIFAR-100 binaries, images with class masks, COCO annotations, or images in one
// sub-folder a class. image_size is used by `shapes` and `scenes` only.
// Throws Error(data) with what is missing and what to do about it.
std::shared_ptr<const Dataset> open_dataset(const std::string& spec, Split split, int64_t image_size = 32);

// A folder with {train,t10k}-images-idx3-ubyte and -labels-idx1-ubyte, plain or .gz. Images and labels must agree in
// number, and labels stay below the number of classes: one more than the training split's largest label, 10 for
// Fashion-MNIST.
std::shared_ptr<const Dataset> open_idx(const std::string& folder, Split split);

// A folder with data_batch_1..5.bin and test_batch.bin (CIFAR-10), or train.bin and test.bin (CIFAR-100, fine labels).
std::shared_ptr<const Dataset> open_cifar(const std::string& folder, Split split);

// A folder with one sub-folder a class, sorted by name; images directly in it make a single class. With a sub-folder
// `train` beside `test` or `val` these are the splits; otherwise every tenth image of a class is for testing.
std::shared_ptr<const Dataset> open_folder(const std::string& folder, Split split);

// Every image in a folder and below it, sorted by name, as one class without splits: what a sampler has written.
std::shared_ptr<const Dataset> open_images(const std::string& folder);

// Images with class masks, for segmentation: images/NAME.png or .jpg beside masks/NAME.png, which are gray and of the
// image's size (0 background, 1.. the classes, 255 not judged), in the folder or in its sub-folders train and test or
// val; classes.txt names the classes, one a line, the first is number 1.
std::shared_ptr<const Dataset> open_mask_folder(const std::string& folder, Split split);

// Images with boxes in COCO's layout: annotations/instances_NAME.json beside the folder NAME of its images, where NAME
// begins with train, and with val or test. Categories are numbered in the order of their ids; crowds are left out.
std::shared_ptr<const Dataset> open_coco(const std::string& folder, Split split);

// Drawn, coloured, turned shapes (circle, square, triangle, star, ring, cross, heart, moon) on a shaded background of
// image_size x image_size pixels. Image `index` depends on (split, index) only; its class is index mod 8.
std::shared_ptr<const Dataset> make_shapes(int64_t count, Split split, int64_t image_size);

}  // namespace addp
