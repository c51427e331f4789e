// CIFAR-10 and CIFAR-100, binary version: records of 1 label (CIFAR-100: coarse, fine) and 3072 bytes, the red, green
// and blue planes of a 32x32 image.
#include <filesystem>
#include <sstream>

#include "data/memory_dataset.h"
#include "tensor/files.h"

namespace addp {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kSide = 32, kPlane = kSide * kSide;
constexpr int64_t kMaxCifarBytes = int64_t{1} << 30;

struct CifarKind {
  int64_t classes, labels_per_record;
  const char* names_file;
  std::vector<std::string> train_files, test_files;
  int64_t records_per_train_file;  // as published
};

const CifarKind kCifar10 = {
    10,
    1,
    "batches.meta.txt",
    {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
    {"test_batch.bin"},
    10000};
const CifarKind kCifar100 = {100, 2, "fine_label_names.txt", {"train.bin"}, {"test.bin"}, 50000};
constexpr int64_t kTestRecords = 10000;

// One line a class; without the file, or with another number of lines, classes are called by their numbers.
std::vector<std::string> read_class_names(const fs::path& path, int64_t classes) {
  std::vector<std::string> names;
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) {
    std::istringstream lines(read_file(path.string(), ErrorKind::data, 1 << 16));
    for (std::string line; std::getline(lines, line);) {
      if (line.ends_with('\r')) line.pop_back();
      if (!line.empty()) names.push_back(line);
    }
  }
  if (static_cast<int64_t>(names.size()) == classes) return names;
  names.clear();
  for (int64_t i = 0; i < classes; ++i) names.push_back(std::to_string(i));
  return names;
}

// Returns the number of records.
int64_t append_file(MemoryDataset& dataset, const std::string& path, const CifarKind& kind) {
  const int64_t record = kind.labels_per_record + 3 * kPlane;
  const std::string bytes = read_file(path, ErrorKind::data, kMaxCifarBytes);
  const int64_t size = static_cast<int64_t>(bytes.size()), count = size / record;
  check_as(ErrorKind::data, count > 0 && size % record == 0, path, ": has ", size,
           " bytes, a positive multiple of the record's ", record, " is expected (truncated?)");
  std::vector<uint8_t> pixels(count * 3 * kPlane), labels(count);
  for (int64_t i = 0; i < count; ++i) {
    const char* source = bytes.data() + i * record;
    labels[i] = static_cast<uint8_t>(source[kind.labels_per_record - 1]);
    source += kind.labels_per_record;
    uint8_t* target = pixels.data() + i * 3 * kPlane;
    for (int64_t p = 0; p < kPlane; ++p) {
      for (int64_t c = 0; c < 3; ++c) target[p * 3 + c] = static_cast<uint8_t>(source[c * kPlane + p]);
    }
  }
  check_labels(path, labels, kind.classes);
  dataset.append(path, pixels, labels);
  return count;
}

}  // namespace

std::shared_ptr<const Dataset> open_cifar(const std::string& folder, Split split) {
  std::error_code ignored;
  const fs::path root(folder);
  const bool is_100 = fs::exists(root / "train.bin", ignored) || fs::exists(root / "test.bin", ignored);
  const CifarKind& kind = is_100 ? kCifar100 : kCifar10;
  auto dataset = std::make_shared<MemoryDataset>();
  dataset->name = is_100 ? "cifar-100" : "cifar-10";
  dataset->height = dataset->width = kSide;
  dataset->channels = 3;
  dataset->class_names = read_class_names(root / kind.names_file, kind.classes);
  const int64_t published = split == Split::train ? kind.records_per_train_file : kTestRecords;
  for (const std::string& name : split == Split::train ? kind.train_files : kind.test_files) {
    const std::string path = (root / name).string();
    const int64_t count = append_file(*dataset, path, kind);
    if (count == published) continue;
    dataset->remarks.push_back({path, concat_text("has ", count, " images, the published file has ", published)});
  }
  return dataset;
}

}  // namespace addp
