// How faults are worded: kernel, block, thread, and the place in the source. Function names come from the program's own
// symbol table, so that no linker flag is needed.
#include <elf.h>
#include <link.h>

#include <fstream>
#include <map>
#include <sstream>

#include "cuda/device.h"
#include "cuda/emulator/emulator.h"

namespace addp::emulator {
namespace {

uintptr_t program_base() {
  uintptr_t base = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        *static_cast<uintptr_t*>(result) = info->dlpi_addr;
        return 1;  // the program itself comes first
      },
      &base);
  return base;
}

std::map<uintptr_t, std::string> read_symbols() {
  std::map<uintptr_t, std::string> symbols;
  std::ifstream in("/proc/self/exe", std::ios::binary);
  std::stringstream bytes;
  bytes << in.rdbuf();
  const std::string file = bytes.str();
  if (file.size() < sizeof(ElfW(Ehdr))) return symbols;
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(file.data());
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(file.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto* symbol = reinterpret_cast<const ElfW(Sym)*>(file.data() + sections[i].sh_offset);
    const char* names = file.data() + sections[sections[i].sh_link].sh_offset;
    for (size_t k = 0; k < sections[i].sh_size / sizeof(ElfW(Sym)); ++k)
      if ((symbol[k].st_info & 0xf) == STT_FUNC && symbol[k].st_value)
        symbols.emplace(program_base() + symbol[k].st_value, names + symbol[k].st_name);
  }
  return symbols;
}

}  // namespace

std::string describe(const Site& site) {
  const std::string file = site.file_name();
  return concat_text(file.substr(file.rfind('/') + 1), ":", site.line());
}

void fault_text(const std::string& text) {
  if (!running.thread) fail(ErrorKind::device, text);
  const uint3 &b = running.block_index, &t = running.thread->index;
  fail(ErrorKind::device, kernel_name(running_kernel()), ": ", text, " [block ", b.x, ",", b.y, ",", b.z, " thread ",
       t.x, ",", t.y, ",", t.z, "]");
}

void report_misaligned(const void* address, size_t alignment) {
  fault("misaligned access: a vector of alignment ", alignment, " at address ", address);
}

}  // namespace addp::emulator

cudaError_t cudaFuncGetName(const char** name, const void* kernel) {
  static const auto* symbols = new std::map(addp::emulator::read_symbols());
  const auto found = symbols->find(reinterpret_cast<uintptr_t>(kernel));
  if (found == symbols->end()) return cudaErrorInvalidValue;
  *name = found->second.c_str();
  return cudaSuccess;
}
