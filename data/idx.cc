// IDX files (MNIST and its relatives): 00 00, type (08 for bytes), number of axes, their extents as big-endian u32,
// then the values. zlib reads plain and gzip files alike.
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "data/memory_dataset.h"

namespace addp {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kMaxIdxBytes = int64_t{1} << 32;
const std::vector<std::string> kFashionClasses = {"t-shirt", "trouser", "pullover", "dress", "coat",
                                                  "sandal",  "shirt",   "sneaker",  "bag",   "boot"};

struct IdxArray {
  std::vector<int64_t> extents;
  std::vector<uint8_t> values;
};

class GzipReader {
 public:
  explicit GzipReader(const std::string& path) : path_(path), file_(::gzopen(path.c_str(), "rb"), ::gzclose) {
    check_as(ErrorKind::data, file_ != nullptr, path_, ": cannot be opened (", std::strerror(errno), ")");
  }

  // Up to count bytes; fewer only where the file ends.
  int64_t read(uint8_t* out, int64_t count) {
    const int got = ::gzread(file_.get(), out, static_cast<unsigned>(count));
    int code = Z_OK;
    const char* message = ::gzerror(file_.get(), &code);
    check_as(ErrorKind::data, got >= 0 && code != Z_BUF_ERROR, path_, ": is damaged or truncated (", message, ")");
    return got;
  }

 private:
  std::string path_;
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file_;
};

// Memory grows with the bytes that arrive, never with what a header claims; reading stops one byte after the stated
// end, so that a file that unpacks to gigabytes costs nothing.
std::vector<uint8_t> read_values(GzipReader& reader, const std::string& path, int64_t count) {
  constexpr int64_t kChunk = int64_t{1} << 24;
  std::vector<uint8_t> values;
  while (static_cast<int64_t>(values.size()) < count) {
    const int64_t have = static_cast<int64_t>(values.size()), want = std::min(kChunk, count - have);
    values.resize(have + want);
    const int64_t got = reader.read(values.data() + have, want);
    check_as(ErrorKind::data, got == want, path, ": is truncated (its header promises ", count, " values, ", have + got,
             " are there)");
  }
  uint8_t extra = 0;
  check_as(ErrorKind::data, reader.read(&extra, 1) == 0, path, ": goes on after the ", count,
           " values that its header promises");
  return values;
}

IdxArray read_idx(const std::string& path, int64_t axes) {
  GzipReader reader(path);
  uint8_t magic[4] = {};
  const int64_t got = reader.read(magic, 4);
  check_as(ErrorKind::data, got == 4 && magic[0] == 0 && magic[1] == 0, path,
           ": is no IDX file (it must begin with two zero bytes)");
  check_as(ErrorKind::data, magic[2] == 0x08 && magic[3] == axes, path, ": holds type ", int{magic[2]}, " in ",
           int{magic[3]}, " axes, bytes (type 8) in ", axes, " axes are expected");
  IdxArray array;
  int64_t count = 1;
  for (int64_t axis = 0; axis < axes; ++axis) {
    uint8_t word[4] = {};
    check_as(ErrorKind::data, reader.read(word, 4) == 4, path, ": is truncated (it stops inside its header)");
    const int64_t extent = int64_t{word[0]} << 24 | int64_t{word[1]} << 16 | int64_t{word[2]} << 8 | int64_t{word[3]};
    check_as(ErrorKind::data, extent > 0 && extent <= kMaxIdxBytes / count, path, ": states extent ", extent,
             " for axis ", axis, ", a positive one is expected and at most ", kMaxIdxBytes, " values in all");
    count *= extent;
    array.extents.push_back(extent);
  }
  array.values = read_values(reader, path, count);
  return array;
}

// what: "images-idx3" or "labels-idx1". Some downloads have a dot for the second hyphen.
std::string find_file(const fs::path& folder, Split split, const std::string& what) {
  const std::string name = (split == Split::train ? "train-" : "t10k-") + what + "-ubyte";
  std::string dotted = name;
  dotted[name.find("-idx")] = '.';
  std::error_code ignored;
  for (const std::string& candidate : {name, dotted, name + ".gz", dotted + ".gz"}) {
    if (fs::is_regular_file(folder / candidate, ignored)) return (folder / candidate).string();
  }
  fail(ErrorKind::data, folder.string(), ": ", name, " (or ", name, ".gz) is missing");
}

// Names for as many classes as the training labels use, so that both splits agree.
std::vector<std::string> name_classes(const fs::path& folder, const std::vector<uint8_t>& train_labels) {
  const std::string name = fs::weakly_canonical(folder).string();
  if (name.find("fashion") != name.npos || name.find("Fashion") != name.npos) return kFashionClasses;
  const int64_t classes = int64_t{*std::max_element(train_labels.begin(), train_labels.end())} + 1;
  std::vector<std::string> names;
  for (int64_t i = 0; i < classes; ++i) names.push_back(std::to_string(i));
  return names;
}

}  // namespace

std::shared_ptr<const Dataset> open_idx(const std::string& folder, Split split) {
  const std::string image_file = find_file(folder, split, "images-idx3");
  const std::string label_file = find_file(folder, split, "labels-idx1");
  const IdxArray images = read_idx(image_file, 3), labels = read_idx(label_file, 1);
  check_as(ErrorKind::data, images.extents[0] == labels.extents[0], image_file, ": has ", images.extents[0],
           " images, but ", label_file, " has ", labels.extents[0], " labels");

  auto dataset = std::make_shared<MemoryDataset>();
  dataset->name = fs::weakly_canonical(folder).filename().string();
  dataset->height = images.extents[1];
  dataset->width = images.extents[2];
  dataset->class_names =
      name_classes(folder, split == Split::train ? labels.values
                                                 : read_idx(find_file(folder, Split::train, "labels-idx1"), 1).values);
  check_labels(label_file, labels.values, dataset->classes());
  dataset->append(image_file, images.values, labels.values);
  return dataset;
}

}  // namespace addp
