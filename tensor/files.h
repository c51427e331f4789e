// Whole files: read with a size limit, written atomically. After a crash, a kill or a full disk a path holds either its
// old bytes or its new ones, never a half of them. Errors name the file and what the system said.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/error.h"

namespace addp {

// Writes a temporary file beside `path`, syncs it, renames it over `path`, syncs the directory. Symbolic links are
// followed; a device or a pipe (/dev/stdout) is written directly. On failure throws Error(runtime), the temporary is
// removed and an old file is intact.
void write_file_atomically(const std::string& path, std::string_view bytes);

// The same for a file in several parts (a header, then the data of each tensor), which need not be joined in memory.
void write_pieces_atomically(const std::string& path, const std::vector<std::string_view>& pieces);

// A file that grows: logs. Each append reaches the operating system before it returns (a kill loses nothing of it) or
// leaves the file as it was and throws Error(runtime).
class AppendFile {
 public:
  explicit AppendFile(const std::string& path);  // creates the file or continues it
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&&) = delete;

  void append(std::string_view bytes);
  void sync();  // survives a power failure from here on
  int64_t size() const;

 private:
  std::string path_;
  int fd_ = -1;
};

// All bytes of a file. Throws Error(kind) when it cannot be read or holds more than max_bytes.
std::string read_file(const std::string& path, ErrorKind kind = ErrorKind::runtime,
                      int64_t max_bytes = int64_t{1} << 40);

// Removes what atomic writes that were killed half-way left in a directory. Returns how many files that were.
int remove_stale_temporaries(const std::string& directory);

// Makes renames, creations and removals in a directory durable.
void sync_directory(const std::string& directory);

}  // namespace addp
