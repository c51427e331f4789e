// The directory of a zip archive whose entries are stored without compression, as torch.save and numpy.savez write it.
// ZIP64 and data descriptors are understood; compressed or encrypted entries are refused.
#pragma once
#include <cstdint>
#include <istream>
#include <map>
#include <string>

namespace addp {

struct ZipEntry {
  int64_t begin = 0;  // where the entry's bytes start in the file
  int64_t size = 0;   // in bytes
};

// Entries by name. Every entry lies inside the file. Throws Error(checkpoint) naming the path.
std::map<std::string, ZipEntry> read_zip_directory(std::istream& file, const std::string& path);

}  // namespace addp
