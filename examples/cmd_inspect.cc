// Tables of headers. Names and metadata come from files, so control characters are not printed.
#include "examples/cmd_inspect.h"

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <map>
#include <sstream>
#include <vector>

#include "examples/run_folder.h"
#include "tensor/stored_types.h"
#include "tensor/torch_checkpoint.h"

namespace addp {
namespace {
namespace fs = std::filesystem;

// 1234567 -> 1,234,567
std::string with_commas(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto place = static_cast<int64_t>(digits.size()) - 3; place > 0; place -= 3)
    digits.insert(static_cast<size_t>(place), ",");
  return digits;
}

std::string readable_bytes(int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit) value /= 1024;
  std::ostringstream text;
  text << std::fixed << std::setprecision(unit == 0 ? 0 : 1) << value << " " << units[unit];
  return text.str();
}

std::string printable(std::string text, size_t limit) {
  if (text.size() > limit) text = text.substr(0, limit) + "...";
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 32 || c == 127; }, ' ');
  return text;
}

void print_header(const SafetensorsHeader& header, std::ostream& out) {
  if (!header.metadata.empty()) out << "metadata\n";
  for (const auto& [key, value] : header.metadata)
    out << "  " << printable(key, 60) << " = " << printable(value, 400) << "\n";

  std::vector<TensorInfo> tensors = header.tensors;
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  size_t name_width = 4, shape_width = 5;
  for (const TensorInfo& t : tensors) {
    name_width = std::max(name_width, printable(t.name, 100).size());
    shape_width = std::max(shape_width, concat_text(t.shape).size());
  }
  const auto row = [&](const std::string& name, const std::string& type, const std::string& shape,
                       const std::string& count, const std::string& bytes) {
    out << "  " << std::left << std::setw(static_cast<int>(name_width)) << name << "  " << std::setw(4) << type << "  "
        << std::setw(static_cast<int>(shape_width)) << shape << std::right << std::setw(15) << count << std::setw(12)
        << bytes << "\n";
  };
  row("name", "type", "shape", "elements", "size");
  std::map<std::string, int64_t> per_type;
  int64_t elements = 0, bytes = 0;
  for (const TensorInfo& t : tensors) {
    const int64_t size = t.end - t.begin, count = size / stored_size(t.dtype);
    row(printable(t.name, 100), t.dtype, concat_text(t.shape), with_commas(count), readable_bytes(size));
    per_type[t.dtype] += count;
    elements += count;
    bytes += size;
  }
  out << "total: " << tensors.size() << (tensors.size() == 1 ? " tensor, " : " tensors, ") << with_commas(elements)
      << " elements, " << readable_bytes(bytes);
  for (const auto& [type, count] : per_type) out << ", " << with_commas(count) << " " << type;
  out << "\n";
}

bool is_weight_file(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".safetensors" || extension == ".pth" || extension == ".pt" || extension == ".ckpt";
}

void print_file(const std::string& path, std::ostream& out) {
  const bool torch = is_torch_checkpoint(path);
  const SafetensorsHeader header = torch ? read_torch_header(path) : read_safetensors_header(path);
  out << path << ": " << (torch ? "PyTorch checkpoint" : "safetensors") << ", "
      << readable_bytes(static_cast<int64_t>(fs::file_size(path))) << "\n";
  print_header(header, out);
}

void print_folder(const std::string& path, std::ostream& out) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  check_as(ErrorKind::checkpoint, std::any_of(files.begin(), files.end(), is_weight_file), path,
           ": holds no weight files (.safetensors, .pth, .pt, .ckpt) and no checkpoint of a run");
  if (fs::path(path).filename().string().starts_with("step_"))
    out << path << ": checkpoint, "
        << (fs::exists(fs::path(path) / "DONE") ? "complete" : "INCOMPLETE: its DONE file is missing") << "\n";
  for (const fs::path& file : files) {
    out << "\n";
    if (is_weight_file(file)) print_file(file.string(), out);
    else out << file.string() << ": " << readable_bytes(static_cast<int64_t>(fs::file_size(file))) << "\n";
  }
}

}  // namespace

int run_inspect(const std::string& path) { return run_inspect(path, std::cout); }

int run_inspect(const std::string& path, std::ostream& out) {
  std::error_code ignored;
  check_as(ErrorKind::checkpoint, fs::exists(path, ignored), path, ": no such file or folder");
  if (!fs::is_directory(path, ignored)) {
    print_file(path, out);
  } else if (fs::is_directory(path + "/checkpoints", ignored)) {
    const std::vector<int64_t> steps = checkpoint_steps(path);
    out << path << ": run with " << steps.size() << " complete checkpoints\n";
    print_folder(newest_checkpoint(path), out);
  } else {
    print_folder(path, out);
  }
  return 0;
}

}  // namespace addp
