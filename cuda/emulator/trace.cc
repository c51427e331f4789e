// Launches noted one by one: which kernel, with which numbers, over how much memory; and the dry run, in which nothing
// else happens.
#include <optional>
#include <utility>

#include "cuda/device.h"
#include "cuda/emulator/emulator.h"

namespace addp::emulator {
namespace {

// The present trace; names are looked up when it is taken.
struct Noted {
  const void* kernel;  // null when the launch has its name already
  Launch launch;
};
std::optional<Trace::Mode> mode;
std::vector<Noted>& noted() {
  static auto* list = new std::vector<Noted>;
  return *list;
}

Launch::Pointer describe_pointer(const void* pointer, size_t element_bytes) {
  const Allocation* allocation = pointer ? find_allocation(pointer) : nullptr;
  if (!allocation) return {element_bytes, 0};
  return {element_bytes,
          static_cast<size_t>(allocation->begin + allocation->bytes - static_cast<const char*>(pointer))};
}

}  // namespace

bool is_dry() { return mode == Trace::Mode::dry; }

void note_launch(const Call& call, const Counters& before, const Counters& after) {
  if (!mode) return;
  Launch launch;
  for (size_t i = 0; i < call.pointers.size(); ++i)
    launch.pointers.push_back(describe_pointer(call.pointers[i], call.element_bytes[i]));
  launch.numbers = call.numbers;
  launch.fetched = static_cast<double>(after.bytes_fetched - before.bytes_fetched);
  launch.stored = static_cast<double>(after.bytes_stored - before.bytes_stored);
  noted().push_back({call.kernel, std::move(launch)});
}

void note_product(Launch launch) {
  if (mode) noted().push_back({nullptr, std::move(launch)});
}

Trace::Trace(Mode asked) {
  const std::lock_guard lock(device_lock());
  check(!mode, "emulator: one trace at a time");
  wait_for_all();
  mode = asked;
}

Trace::~Trace() {
  const std::lock_guard lock(device_lock());
  noted().clear();
  mode.reset();
}

std::vector<Launch> Trace::take() {
  const std::lock_guard lock(device_lock());
  wait_for_all();
  std::vector<Launch> launches;
  for (Noted& one : noted()) {
    if (one.kernel) one.launch.name = kernel_name(one.kernel);
    launches.push_back(std::move(one.launch));
  }
  noted().clear();
  return launches;
}

}  // namespace addp::emulator
