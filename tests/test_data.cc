// The data room: every kind of data set written small and read back, every way in which one can be wrong, and batches
// that are the same after a restart at any step.
#include <zlib.h>

#include <set>

#include "data/check.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "tensor/files.h"
#include "tests/pictures.h"
#include "tests/scratch.h"

namespace addp {
namespace {

// Returns the path of a file with these bytes in the folder.
std::string put(const ScratchFolder& folder, const std::string& name, const std::string& bytes) {
  fs::create_directories(fs::path(folder / name).parent_path());
  write_file_atomically(folder / name, bytes);
  return folder / name;
}

std::string idx_bytes(const std::vector<uint32_t>& extents, const std::string& values) {
  std::string bytes = {0, 0, 8, static_cast<char>(extents.size())};
  for (uint32_t extent : extents) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(extent >> shift);
  }
  return bytes + values;
}

std::string gzip(const std::string& bytes) {
  std::string out(compressBound(bytes.size()) + 64, '\0');
  z_stream stream = {};
  deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// Three 2x2 images with labels 0, 1, 2 for training, one for testing.
const std::string kIdxPixels = "abcdefghijkl";
void write_idx_files(const ScratchFolder& folder) {
  put(folder, "train-images-idx3-ubyte", idx_bytes({3, 2, 2}, kIdxPixels));
  put(folder, "train-labels-idx1-ubyte", idx_bytes({3}, std::string("\0\1\2", 3)));
  put(folder, "t10k-images-idx3-ubyte", idx_bytes({1, 2, 2}, "wxyz"));
  put(folder, "t10k-labels-idx1-ubyte", idx_bytes({1}, "\1"));
}

bool has_finding(const DatasetReport& report, const std::string& path, const std::string& reason) {
  for (const Finding& finding : report.findings) {
    if (finding.path.find(path) != std::string::npos && finding.reason.find(reason) != std::string::npos) return true;
  }
  return false;
}

LoaderOptions small_batches() {
  LoaderOptions options;
  options.batch_size = 5;
  options.image_size = 16;
  options.seed = 3;
  options.augmentation.random_crop = options.augmentation.flip = true;
  return options;
}

}  // namespace

TEST_CASE("data: IDX, plain and gzip") {
  ScratchFolder folder;
  write_idx_files(folder);
  for (bool zipped : {false, true}) {
    if (zipped) {
      for (const char* name : {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"}) {
        const std::string bytes = read_file(folder / name);
        fs::remove(folder / name);
        put(folder, std::string(name) + ".gz", gzip(bytes));
      }
    }
    const auto train = open_dataset(folder.path.string(), Split::train);
    REQUIRE(train->size() == 3);
    CHECK(train->class_names == std::vector<std::string>{"0", "1", "2"});
    const Sample sample = train->read(1);
    CHECK(sample.label == 1);
    CHECK(sample.image.channels == 1);
    CHECK(sample.image.pixels == std::vector<uint8_t>{'e', 'f', 'g', 'h'});
    CHECK(train->where(2).find("image 2") != std::string::npos);
    CHECK_THROWS_AS(train->read(3), Error);
    const auto test = open_dataset(folder.path.string(), Split::test);
    CHECK(test->size() == 1);
    CHECK(test->classes() == 3);
  }
}

TEST_CASE("data: IDX that lies about itself is refused") {
  ScratchFolder folder;
  write_idx_files(folder);
  const auto refuse = [&](const std::string& images, const std::string& reason) {
    put(folder, "train-images-idx3-ubyte", images);
    check_refused([&] { open_dataset(folder.path.string(), Split::train); }, {"train-images-idx3-ubyte", reason});
  };
  refuse(idx_bytes({3, 2, 2}, kIdxPixels.substr(1)), "truncated");
  refuse(idx_bytes({3, 2, 2}, kIdxPixels + "!"), "goes on");
  refuse(idx_bytes({3, 2, 2}, "").substr(0, 9), "inside its header");
  refuse(idx_bytes({2, 2, 2}, kIdxPixels.substr(4)), "3 labels");
  refuse(idx_bytes({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, kIdxPixels), "extent");
  refuse(idx_bytes({0xFFFFFFFF, 1, 1}, kIdxPixels), "truncated");
  refuse(idx_bytes({0, 2, 2}, ""), "extent");
  refuse(idx_bytes({12}, kIdxPixels), "3 axes");
  refuse("PK\3\4", "no IDX file");
  std::string floats = idx_bytes({3, 2, 2}, kIdxPixels);
  floats[2] = 0x0D;
  refuse(floats, "type 13");

  fs::remove(folder / "train-images-idx3-ubyte");
  check_refused([&] { open_dataset(folder.path.string(), Split::train); }, {"train-images-idx3-ubyte", "missing"});
  // A file that unpacks to far more than its header says, and one that stops half-way.
  const std::string zipped = gzip(idx_bytes({3, 2, 2}, std::string(1 << 22, 'x')));
  put(folder, "train-images-idx3-ubyte.gz", zipped);
  check_refused([&] { open_dataset(folder.path.string(), Split::train); }, {"idx3-ubyte.gz", "goes on"});
  put(folder, "train-images-idx3-ubyte.gz", gzip(idx_bytes({3, 2, 2}, kIdxPixels)).substr(0, 30));
  check_refused([&] { open_dataset(folder.path.string(), Split::train); }, {"idx3-ubyte.gz", "truncated"});
}

TEST_CASE("data: a test label that training does not have is refused") {
  ScratchFolder folder;
  write_idx_files(folder);
  put(folder, "t10k-labels-idx1-ubyte", idx_bytes({1}, "\5"));
  check_refused([&] { open_dataset(folder.path.string(), Split::test); }, {"t10k-labels", "record 0 has label 5"});
}

TEST_CASE("data: CIFAR-10 and CIFAR-100") {
  ScratchFolder folder;
  std::string record(1 + 3072, 'b');
  record[0] = 7;
  record[1] = 'r', record[1 + 1024] = 'g';
  for (int i = 1; i <= 5; ++i) put(folder, concat_text("data_batch_", i, ".bin"), record + record);
  put(folder, "test_batch.bin", record);
  const auto train = open_dataset(folder.path.string(), Split::train);
  CHECK(train->name == "cifar-10");
  CHECK(train->size() == 10);
  CHECK(train->classes() == 10);
  CHECK(train->remarks.size() == 5);  // fewer than the published 10000
  CHECK(train->where(3).find("data_batch_2.bin, image 1") != std::string::npos);
  const Sample sample = train->read(9);
  CHECK(sample.label == 7);
  CHECK(sample.image.pixels[0] == 'r');
  CHECK(sample.image.pixels[1] == 'g');
  CHECK(sample.image.pixels[2] == 'b');

  put(folder, "data_batch_3.bin", record.substr(5));
  check_refused([&] { open_cifar(folder.path.string(), Split::train); }, {"data_batch_3.bin", "truncated"});
  record[0] = 10;
  put(folder, "data_batch_3.bin", record);
  check_refused([&] { open_cifar(folder.path.string(), Split::train); }, {"data_batch_3.bin", "label 10"});
  fs::remove(folder / "data_batch_3.bin");
  check_refused([&] { open_cifar(folder.path.string(), Split::train); }, {"data_batch_3.bin"});

  ScratchFolder hundred;
  put(hundred, "train.bin", std::string("\x05\x63") + record.substr(1));
  const auto fine = open_dataset(hundred.path.string(), Split::train);
  CHECK(fine->name == "cifar-100");
  CHECK(fine->classes() == 100);
  CHECK(fine->read(0).label == 99);
}

TEST_CASE("data: image folders, with and without train and test") {
  ScratchFolder folder;
  for (int i = 0; i < 12; ++i) put(folder, concat_text("dog/", 10 + i, ".png"), encode_png(make_image(9, 9, 3, i)));
  put(folder, "cat/a.JPG", encode_jpeg(make_image(16, 16, 3)));
  put(folder, "cat/deeper/b.png", encode_png(make_image(9, 9, 3)));
  put(folder, "cat/.hidden.png", "");
  put(folder, "cat/notes.txt", "x");
  const auto train = open_dataset(folder.path.string(), Split::train);
  CHECK(train->class_names == std::vector<std::string>{"cat", "dog"});
  CHECK(train->size() == 13);
  CHECK(train->read(0).label == 0);
  CHECK(train->read(2).label == 1);
  REQUIRE(train->remarks.size() == 1);
  CHECK(train->remarks[0].path == folder / "cat/notes.txt");
  const auto test = open_dataset(folder.path.string(), Split::test);
  REQUIRE(test->size() == 1);
  CHECK(test->where(0) == folder / "dog/19.png");
  CHECK(test->read(0).label == 1);

  ScratchFolder split;
  put(split, "train/a/1.png", encode_png(make_image(9, 9, 3)));
  put(split, "train/b/1.png", encode_png(make_image(9, 9, 3)));
  check_refused([&] { open_dataset(split.path.string(), Split::test); }, {"neither test nor val"});
  put(split, "val/b/1.png", encode_png(make_image(9, 9, 3)));
  CHECK(open_dataset(split.path.string(), Split::train)->size() == 2);
  CHECK(open_dataset(split.path.string(), Split::test)->read(0).label == 1);
  put(split, "val/c/1.png", encode_png(make_image(9, 9, 3)));
  check_refused([&] { open_dataset(split.path.string(), Split::test); }, {"val/c", "training classes"});
}

TEST_CASE("data: what is not there is refused with advice") {
  ScratchFolder folder;
  check_refused([&] { open_dataset("no-such-data", Split::train); }, {"no-such-data", "shapes, fashion-mnist and scenes"});
  check_refused([&] { open_dataset(folder.path.string(), Split::train); }, {folder.path.string(), "no images"});
  const std::string file = put(folder, "a.png", encode_png(make_image(9, 9, 3)));
  check_refused([&] { open_dataset(file, Split::train); }, {"is a file"});
  CHECK_THROWS_AS(parse_split("valid"), Error);
  CHECK_THROWS_AS(make_shapes(10, Split::train, 2), Error);
}

TEST_CASE("data: shapes are drawn the same each time, differently for each image") {
  const auto shapes = make_shapes(100, Split::train, 32), again = make_shapes(50, Split::train, 32);
  const auto test = make_shapes(100, Split::test, 32);
  std::set<std::string> pictures;
  for (int64_t i = 0; i < 40; ++i) {
    const Sample sample = shapes->read(i);
    CHECK(sample.label == i % shapes->classes());
    CHECK(sample.image.pixels == again->read(i).image.pixels);
    pictures.insert(encode_png(sample.image));
    pictures.insert(encode_png(test->read(i).image));
  }
  CHECK(pictures.size() == 80);
}

TEST_CASE("data: a loader that starts at any step delivers what the uninterrupted one does") {
  const std::shared_ptr<const Dataset> shapes = make_shapes(23, Split::train, 20);
  std::vector<Batch> batches;
  Loader loader(shapes, small_batches());
  CHECK(loader.steps_per_epoch() == 4);
  for (int step = 0; step < 10; ++step) batches.push_back(loader.next());
  for (int64_t start : {1, 3, 4, 9}) {
    Loader resumed(shapes, small_batches(), start);
    for (int64_t step = start; step < 10; ++step) {
      const Batch batch = resumed.next();
      CHECK(batch.step == step);
      CHECK(batch.epoch == step / 4);
      CHECK(same_bits(batch.images, batches[step].images));
      CHECK(same_bits(batch.labels, batches[step].labels));
    }
  }
  LoaderOptions other = small_batches();
  other.seed = 4;
  CHECK(!same_bits(BatchMaker(shapes, other).make(0).images, batches[0].images));
  CHECK(batches[0].images.shape() == Shape{5, 3, 16, 16});
}

TEST_CASE("data: an epoch has every image once, in an order of its own") {
  ScratchFolder folder;
  std::string labels, pixels;
  for (char i = 0; i < 23; ++i) labels += i, pixels += i;
  put(folder, "train-images-idx3-ubyte", idx_bytes({23, 1, 1}, pixels));
  put(folder, "train-labels-idx1-ubyte", idx_bytes({23}, labels));
  const auto dataset = open_dataset(folder.path.string(), Split::train);
  LoaderOptions options;
  options.batch_size = 5;
  options.image_size = 8;
  options.drop_last = false;
  BatchMaker maker(dataset, options);
  CHECK(maker.steps_per_epoch() == 5);
  std::vector<std::vector<int64_t>> orders(2);
  for (int64_t step = 0; step < 10; ++step) {
    const Batch batch = maker.make(step);
    CHECK(batch.images.dim(0) == (step % 5 == 4 ? 3 : 5));
    for (int64_t label : to_vector<int64_t>(batch.labels)) orders[batch.epoch].push_back(label);
  }
  for (const auto& order : orders) CHECK(std::set<int64_t>(order.begin(), order.end()).size() == 23);
  CHECK(orders[0] != orders[1]);
  options.shuffle = false;
  CHECK(to_vector<int64_t>(BatchMaker(dataset, options).make(6).labels) == std::vector<int64_t>{5, 6, 7, 8, 9});
}

TEST_CASE("data: a loader's errors come out of next, again and again; it stops cleanly at any moment") {
  ScratchFolder folder;
  for (int i = 0; i < 4; ++i) put(folder, concat_text("a/", i, ".png"), encode_png(make_image(9, 9, 3, i)));
  put(folder, "a/3.png", encode_png(make_image(9, 9, 3)).substr(0, 70));
  const auto dataset = open_dataset(folder.path.string(), Split::train);
  LoaderOptions options;
  options.batch_size = 1;
  options.shuffle = false;
  Loader loader(dataset, options);
  for (int i = 0; i < 3; ++i) CHECK(loader.next().step == i);
  for (int i = 0; i < 2; ++i) check_refused([&] { loader.next(); }, {"3.png", "truncated"});
  for (int taken = 0; taken < 4; ++taken) {
    Loader stopped(make_shapes(30, Split::train, 16), small_batches());
    for (int i = 0; i < taken; ++i) stopped.next();
  }
  options.batch_size = 5;
  check_refused([&] { Loader(dataset, options); }, {"4 images", "smaller batch"});
}

TEST_CASE("data: check names every odd file and why") {
  ScratchFolder folder;
  const std::string jpeg = encode_jpeg(make_image(16, 16, 3));
  std::string cmyk = jpeg;
  cmyk[cmyk.find("\xFF\xC0") + 9] = 4;
  for (int i = 0; i < 5; ++i) put(folder, concat_text("train/a/good", i, ".jpg"), jpeg);
  put(folder, "train/a/cmyk.jpg", cmyk);
  put(folder, "train/a/cut.jpg", jpeg.substr(0, jpeg.size() - 2));
  put(folder, "train/a/gray.png", encode_png(make_image(16, 16, 1)));
  put(folder, "train/a/tiny.png", encode_png(make_image(16, 3, 3)));
  put(folder, "train/a/notes.txt", "x");
  fs::create_directories(folder / "train/empty");
  const DatasetReport report = check_dataset(folder.path.string(), Split::train);
  CHECK(has_finding(report, "a/cmyk.jpg", "CMYK"));
  CHECK(has_finding(report, "a/cut.jpg", "truncated"));
  CHECK(has_finding(report, "a/gray.png", "gray among coloured"));
  CHECK(has_finding(report, "a/tiny.png", "3x16"));
  CHECK(has_finding(report, "a/notes.txt", "ignored"));
  CHECK(has_finding(report, "train/empty", "without images"));
  CHECK(!has_finding(report, "good", ""));
  CHECK(report.images == 7);
  CHECK(report.class_counts == std::vector<int64_t>{7, 0});
  CHECK(report.min_side == 3);
  CHECK(report.max_side == 16);

  ScratchFolder idx;
  write_idx_files(idx);
  put(idx, "train-labels-idx1-ubyte", idx_bytes({2}, std::string(2, '\0')));
  CHECK(has_finding(check_dataset(idx.path.string(), Split::train), "", "3 images"));
  CHECK(check_dataset("shapes", Split::test).findings.empty());
}

TEST_CASE("data: Fashion-MNIST as Debian installs it") {
  if (!fs::exists("/usr/share/datasets/fashion-mnist")) return;
  const auto test = open_dataset("fashion-mnist", Split::test);
  CHECK(test->size() == 10000);
  CHECK(test->classes() == 10);
  CHECK(test->class_names[test->read(0).label] == "boot");
  LoaderOptions options;
  options.batch_size = 4;
  CHECK(BatchMaker(test, options).make(0).images.shape() == Shape{4, 3, 32, 32});
}

}  // namespace addp
