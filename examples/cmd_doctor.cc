// Prints the build's features, the machine, a quick speed check and whether data is at hand.
#include "examples/cmd_doctor.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "autograd/ops.h"
#include "tensor/cpu_amx.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"
#include "tensor/random.h"
#include "tensor/roofline.h"

namespace addp {
namespace {

const char* instruction_set() {
#if defined(__AVX512F__)
  return "AVX-512";
#elif defined(__AVX2__)
  return "AVX2";
#else
  return "baseline x86-64";
#endif
}

bool machine_supports_build() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

// Best of several matrix products, GFLOP/s.
double matmul_speed() {
  NoGrad no_grad;
  Rng rng(1);
  const int64_t n = 1024;
  const Var a(rng.normal({n, n})), b(rng.normal({n, n}));
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    matmul(a, b);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return 2e-9 * n * n * n / best;
}

void print_devices() {
  std::printf("devices     cpu");
  try {
    current_cuda();
    std::printf(", %s (%s)", cuda_backend_name(), cuda_device_name());
  } catch (const Error& error) {
    std::printf("; %s", error.what());
  }
  std::printf("\n");
}

}  // namespace

int cmd_doctor(bool roofline) {
  const double memory_gib = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE) / (1 << 30);
  const bool supported = machine_supports_build();
  std::printf("build       g++ %s, %s%s%s\n", __VERSION__, instruction_set(), cpu::has_amx() ? ", AMX" : "",
              supported ? "" : "  <- this machine lacks it: build with `make ARCH=x86-64-v3`");
  print_devices();
  std::printf("threads     %d of %ld cores (--threads or ADDP_THREADS)\n", num_threads(),
              sysconf(_SC_NPROCESSORS_ONLN));
  std::printf("memory      %.1f GiB\n", memory_gib);
  if (!supported) return static_cast<int>(ErrorKind::check_failed);
  std::printf("speed       %.0f GFLOP/s in a 1024 x 1024 float32 matrix product\n", matmul_speed());
  const bool fashion = std::filesystem::exists("/usr/share/datasets/fashion-mnist") ||
                       std::filesystem::exists("/usr/share/dataset-fashion-mnist");
  std::printf("data        shapes (drawn)%s\n",
              fashion ? ", fashion-mnist" : "; fashion-mnist is missing: apt-get install dataset-fashion-mnist");
  std::printf("disk        %.1f GiB free here\n",
              static_cast<double>(std::filesystem::space(".").available) / (1 << 30));
  if (roofline) std::printf("\n%s", roofline_table().c_str());
  return 0;
}

}  // namespace addp
