// Atomic writes by write, fsync, rename, fsync of the directory (POSIX), and bounded reads.
#include "tensor/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

namespace addp {
namespace fs = std::filesystem;
namespace {

constexpr const char* kTemporaryMark = ".addp-tmp-";

std::string reason() {
  return errno == ENOSPC || errno == EDQUOT ? concat_text(std::strerror(errno), ": free some space, then run again")
                                            : std::strerror(errno);
}

// A file descriptor that is closed when it goes out of scope.
struct Descriptor {
  explicit Descriptor(int fd) : fd(fd) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

void write_all(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    // Linux moves at most 2 GiB a call.
    const ssize_t written = ::write(fd, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    check(written >= 0, path, ": cannot be written (", reason(), ")");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

// Some file systems cannot sync and say EINVAL; there is nothing more to be done then.
void sync_descriptor(int fd, const std::string& path) {
  check(::fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP, path, ": cannot be synced (", reason(), ")");
}

void write_in_place(const std::string& path, const std::vector<std::string_view>& pieces) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  check(file.fd >= 0, path, ": cannot be opened for writing (", reason(), ")");
  for (std::string_view piece : pieces) write_all(file.fd, piece, path);
}

void write_temporary(const std::string& temporary, const std::string& path,
                     const std::vector<std::string_view>& pieces) {
  Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  check(file.fd >= 0, path, ": cannot be created (", reason(), ")");
  for (std::string_view piece : pieces) write_all(file.fd, piece, path);
  sync_descriptor(file.fd, path);
}

}  // namespace

void write_pieces_atomically(const std::string& path, const std::vector<std::string_view>& pieces) {
  std::error_code ignored;
  check(!path.empty() && !fs::is_directory(path, ignored), "'", path, "': a file name was expected");
  if (fs::exists(path, ignored) && !fs::is_regular_file(path, ignored)) return write_in_place(path, pieces);

  const fs::path target = fs::is_symlink(path, ignored) ? fs::weakly_canonical(path) : fs::path(path);
  static std::atomic<int> number{0};
  const std::string temporary = concat_text(target.string(), kTemporaryMark, ::getpid(), "-", number++);
  try {
    write_temporary(temporary, path, pieces);
    check(::rename(temporary.c_str(), target.c_str()) == 0, path, ": cannot be replaced (", reason(), ")");
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_directory(target.parent_path().string());
}

void write_file_atomically(const std::string& path, std::string_view bytes) { write_pieces_atomically(path, {bytes}); }

AppendFile::AppendFile(const std::string& path)
    : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
  check(fd_ >= 0, path_, ": cannot be opened for writing (", reason(), ")");
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

AppendFile::~AppendFile() {
  if (fd_ >= 0) ::close(fd_);
}

void AppendFile::append(std::string_view bytes) {
  const int64_t before = size();
  try {
    write_all(fd_, bytes, path_);
  } catch (const Error&) {
    if (::ftruncate(fd_, before) != 0) fail(ErrorKind::runtime, path_, ": its last record is torn (", reason(), ")");
    throw;
  }
}

void AppendFile::sync() { sync_descriptor(fd_, path_); }

int64_t AppendFile::size() const {
  struct stat status = {};
  check(::fstat(fd_, &status) == 0, path_, ": cannot be examined (", reason(), ")");
  return status.st_size;
}

std::string read_file(const std::string& path, ErrorKind kind, int64_t max_bytes) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  check_as(kind, file.fd >= 0, path, ": cannot be opened (", std::strerror(errno), ")");
  struct stat status = {};
  check_as(kind, ::fstat(file.fd, &status) == 0, path, ": cannot be examined (", std::strerror(errno), ")");
  check_as(kind, !S_ISDIR(status.st_mode), path, ": is a directory, a file was expected");

  // Grows beyond the announced size for pipes and files that are being written.
  std::string bytes;
  size_t length = 0;
  size_t chunk = static_cast<size_t>(std::clamp<int64_t>(status.st_size, 0, max_bytes)) + 1;
  while (true) {
    bytes.resize(length + chunk);
    const ssize_t count = ::read(file.fd, bytes.data() + length, chunk);
    if (count < 0 && errno == EINTR) continue;
    check_as(kind, count >= 0, path, ": cannot be read (", std::strerror(errno), ")");
    if (count == 0) break;
    length += static_cast<size_t>(count);
    check_as(kind, static_cast<int64_t>(length) <= max_bytes, path, ": is larger than the ", max_bytes,
             " bytes that are accepted here");
    chunk = std::max<size_t>(bytes.size() - length, 4096);
  }
  bytes.resize(length);
  return bytes;
}

int remove_stale_temporaries(const std::string& directory) {
  int removed = 0;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    if (entry.path().filename().string().find(kTemporaryMark) == std::string::npos) continue;
    removed += fs::remove(entry.path(), ignored);
  }
  return removed;
}

void sync_directory(const std::string& directory) {
  const std::string name = directory.empty() ? "." : directory;
  Descriptor handle(::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  check(handle.fd >= 0, name, ": cannot be opened (", reason(), ")");
  sync_descriptor(handle.fd, name);
}

}  // namespace addp
