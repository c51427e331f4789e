// Faults planted in small kernels and API calls, each beside its right form, to prove that the emulator finds them.
#pragma once
#include <vector>

namespace addp {

// The builds that promise to find a fault.
constexpr unsigned kFast = 1, kAsan = 2, kRace = 4, kAll = 7;

struct PlantedFault {
  const char* name;
  unsigned found_by;
  const char* message;  // part of what is reported; alternatives separated by |
  void (*planted)();    // throws Error or ends the process
  void (*right)();      // does neither
};

const std::vector<PlantedFault>& planted_faults();

}  // namespace addp
