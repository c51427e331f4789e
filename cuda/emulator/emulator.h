// The emulator's own interface: what its parts need of each other, and what tests set and read.
//   memory.cc     device memory: bounds, red zones, NaN in fresh memory, closed to the host
//   runtime.cc    NVIDIA's runtime API; streams.cc: streams, whose work waits until a synchronisation asks for it
//   scheduler.cc  kernels: blocks one after another, one fiber per waiting thread (fiber.cc)
//   collectives.cc  barriers and warp collectives
//   cublas.cc     matrix products
//   race.cc       every load and store of a kernel, in race mode
//   trace.cc      launches noted one by one
// One lock (device_lock) guards it all; kernels run on the thread that synchronises, so results never depend on timing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "cuda/emulator/device_code.h"
#include "tensor/error.h"

namespace addp::emulator {

// The order in which threads and blocks run between barriers. mixed: forward or reverse, changing from launch to launch
// (the default; missing barriers show in one of the two). Also from ADDP_EMULATOR_ORDER at start.
enum class Order { mixed, forward, reverse, random };
void set_order(Order order);

// What a kernel did since the start or the last reset; bytes are counted in race mode only.
struct Counters {
  uint64_t launches = 0, blocks = 0, threads = 0, switches = 0;
  uint64_t bytes_read = 0, bytes_written = 0;  // every access to global memory
  // What memory must deliver and take: each address once a launch, and again when the kernel comes back to it after it
  // moved more than kCacheShare bytes of others.
  uint64_t bytes_fetched = 0, bytes_stored = 0;
};
// Of a GPU's L2 cache, what one block may count on: some 380 KB on an H100 and 100 KB on a T4, when each
// multiprocessor has one. It decides only about kernels that read long rows twice.
constexpr uint64_t kCacheShare = 256 << 10;
std::map<std::string, Counters> counters();  // by kernel name
void reset_counters();

// What the host asked of the runtime since the start or the last reset, besides starting work.
struct HostCalls {
  uint64_t waits = 0;        // calls that wait for the device
  uint64_t allocations = 0;  // calls that stop the device to take or free memory: cudaMalloc, cudaMallocHost ...
  // Calls of cudaMallocAsync for more than the pool ever held: on a GPU it would take memory from the driver.
  uint64_t pool_growths = 0;
};
HostCalls host_calls();

// One launch of a kernel, or of a product by cuBLAS.
struct Launch {
  struct Pointer {
    size_t element_bytes;  // of what it points to
    size_t extent;         // bytes from there to the end of its allocation; 0 when it is null
  };
  std::string name;                // "layer_norm_fwd_kernel<Team<32>, float>"; "gemm<float>"
  std::vector<Pointer> pointers;   // the arguments that are pointers, in order; not of a product
  std::vector<double> numbers;     // the arguments that are numbers, in order; of a product m, n, k, batch, beta
  double fetched = 0, stored = 0;  // as in Counters; of a product what it must read and write
};

// While one lives, launches are noted one by one. Dry: only noted; nothing runs, copies and fills neither, and memory
// that is taken is never touched, so that the largest step costs next to nothing. What the host reads is undefined
// then, and everything allocated must be freed before the trace ends. One at a time.
class Trace {
 public:
  enum class Mode { run, dry };
  explicit Trace(Mode mode);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  std::vector<Launch> take();  // those noted since the start or the last take(), done first unless dry
};

// True when kernels were compiled with the hooks of race mode.
bool race_mode();

std::recursive_mutex& device_lock();

// Throws Error(device) whose message is the parts and, inside a kernel, its name, block and thread.
[[noreturn]] void fault_text(const std::string& text);
template <class... Parts>
[[noreturn]] void fault(const Parts&... parts) {
  fault_text(concat_text(parts...));
}
std::string describe(const Site& site);  // "norm.cu:41"

// ---- memory.cc ------------------------------------------------------------------------------------------------------
struct Allocation {
  char* begin = nullptr;
  size_t bytes = 0;
  bool filled = false;  // NaN is written when memory is next open
  uint64_t number = 0;
};
void* allocate(size_t bytes);                      // null when there is no room
void release(void* pointer, const char* caller);   // checks the red zones; memory must be open
Allocation* find_allocation(const void* pointer);  // live, begin <= pointer <= begin + bytes; else null
void refill(void* pointer);                        // NaN again; memory must be open
bool in_device_memory(const void* pointer);        // live or not
bool is_device_range(const void* pointer, size_t bytes);
void check_red_zones(const Allocation& allocation, const std::string& culprit);
size_t live_bytes();
// While one lives, device memory may be read and written; otherwise a touch ends the process.
struct OpenMemory {
  OpenMemory();
  ~OpenMemory();
};

// ---- runtime.cc, streams.cc -----------------------------------------------------------------------------------------------------
void enqueue(void* stream, std::function<void()> work);
void reset_host_calls();
void wait_for_all();

// ---- trace.cc
// ---------------------------------------------------------------------------------------------------------
bool is_dry();
void note_launch(const Call& call, const Counters& before, const Counters& after);
void note_product(Launch launch);

// ---- scheduler.cc ---------------------------------------------------------------------------------------------------
constexpr size_t kStaticSharedLimit = 48 << 10, kSharedLimit = 64 << 10;  // as on sm_75, the smallest target
void run_kernel(const Call& call, dim3 grid, dim3 block, size_t shared_bytes);
const void* running_kernel();
Counters& running_counters();
uint64_t launch_number();            // of the running kernel
uint64_t block_number();             // linear, of the running block
uint64_t block_epoch();              // block barriers passed by the running block
uint64_t warp_epoch(unsigned warp);  // __syncwarp calls that joined all of the warp's threads
bool in_running_stack(const void* pointer);
bool is_launch_state(const void* pointer);  // built-in variables and the kernel's parameters
enum class SharedCheck { not_shared, inside, outside };
SharedCheck check_shared(const void* pointer, size_t bytes);

}  // namespace addp::emulator
