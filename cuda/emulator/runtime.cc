// NVIDIA's runtime API. A stream is a queue whose work waits until a synchronisation, an event or another stream asks
// for it, so that a missing synchronisation always shows. Arguments that CUDA would only misbehave on are faults here.
#include <chrono>
#include <cstring>
#include <deque>
#include <unordered_map>
#include <utility>

#include "cuda/device.h"
#include "cuda/emulator/emulator.h"

namespace addp::emulator {
namespace {

struct Stream;
struct Point {  // everything in the stream up to a sequence number
  Stream* stream = nullptr;
  uint64_t sequence = 0;
};
struct Work {
  uint64_t sequence;
  std::vector<Point> after;
  std::function<void()> run;
  bool release;  // of memory: done even after a fault
};
// Work recorded by a capture, and the memory that it takes and gives back each time; at its addresses for good.
struct RecordedGraph {
  std::vector<std::function<void()>> work;
  std::map<void*, bool> memory;  // given back again?
};
struct Stream {
  std::deque<Work> queue;
  uint64_t sequence = 0;
  bool blocking = true;                    // ordered with the default stream
  std::shared_ptr<RecordedGraph> capture;  // not null while it captures
};
using Clock = std::chrono::steady_clock;
struct Event {
  Point point;
  Clock::time_point time;
};

struct Runtime {
  Stream default_stream;
  std::vector<Stream*> streams;
  std::unordered_map<const void*, size_t> shared_limit;  // by kernel, once raised
  std::map<char*, size_t> pinned;
  cudaError_t last_error = cudaSuccess;
  size_t queued = 0;
  HostCalls calls;
  size_t pool_bytes = 0, pool_most = 0;  // in the host's order of calls
};
// More waiting work than this is done at once: memory that the queue will free adds up.
constexpr size_t kQueueLimit = 20000, kMemoryLimit = size_t{2} << 30;

Runtime& runtime() {
  static auto* instance = new Runtime;
  return *instance;
}

Stream& stream_of(void* stream) {
  Runtime& r = runtime();
  if (!stream) return r.default_stream;
  for (Stream* known : r.streams)
    if (known == stream) return *known;
  fault("stream ", stream, " does not exist (never created, or destroyed)");
}

void run_until(const Point& point) {
  Stream& stream = *point.stream;
  while (!stream.queue.empty() && stream.queue.front().sequence <= point.sequence) {
    const Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    --runtime().queued;
    for (const Point& earlier : work.after) run_until(earlier);
    work.run();
  }
}

// After a fault nothing more runs, but memory is given back.
void abandon_all() {
  Runtime& r = runtime();
  const auto abandon = [](Stream& stream) {
    while (!stream.queue.empty()) {
      const Work work = std::move(stream.queue.front());
      stream.queue.pop_front();
      try {
        if (work.release) work.run();
      } catch (const Error&) {  // the first fault is the one to report
      }
    }
  };
  abandon(r.default_stream);
  for (Stream* stream : r.streams) abandon(*stream);
  r.queued = 0;
}

void synchronize(const std::vector<Point>& points) {
  if (runtime().queued == 0 || is_dry()) return;
  const OpenMemory open;
  try {
    for (const Point& point : points) run_until(point);
  } catch (...) {
    abandon_all();
    throw;
  }
}

std::vector<Point> everything() {
  Runtime& r = runtime();
  std::vector<Point> points{{&r.default_stream, r.default_stream.sequence}};
  for (Stream* stream : r.streams) points.push_back({stream, stream->sequence});
  return points;
}

Point enqueue_after(void* handle, std::vector<Point> after, std::function<void()> work, bool release = false) {
  Runtime& r = runtime();
  check_as(ErrorKind::device, !running.thread, "emulator: a kernel cannot call the runtime");
  Stream& stream = stream_of(handle);
  if (stream.capture) {
    stream.capture->work.push_back(std::move(work));
    return {};
  }
  if (is_dry() && !release) return {};
  if (&stream == &r.default_stream) {
    for (Stream* other : r.streams)
      if (other->blocking) after.push_back({other, other->sequence});
  } else if (stream.blocking) {
    after.push_back({&r.default_stream, r.default_stream.sequence});
  }
  stream.queue.push_back({++stream.sequence, std::move(after), std::move(work), release});
  const Point point{&stream, stream.sequence};
  if (++r.queued > kQueueLimit || (release && live_bytes() > kMemoryLimit)) synchronize(everything());
  return point;
}

// For calls that a capture forbids.
void check_no_capture(const char* call) {
  for (const Stream* stream : runtime().streams)
    if (stream->capture) fault(call, ": not allowed while a stream captures a graph");
}
void count_wait(const char* call) {
  check_no_capture(call);
  ++runtime().calls.waits;
}
void count_allocation(const char* call) {
  check_no_capture(call);
  ++runtime().calls.allocations;
}

bool is_pinned(const void* pointer) {
  const auto& pinned = runtime().pinned;
  const char* p = static_cast<const char*>(pointer);
  auto next = pinned.upper_bound(const_cast<char*>(p));
  return next != pinned.begin() && p < std::prev(next)->first + std::prev(next)->second;
}

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) runtime().last_error = error;
  return error;
}

void check_copy(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  static const char* const names[] = {"HostToHost", "HostToDevice", "DeviceToHost", "DeviceToDevice", "Default"};
  const bool to_device = in_device_memory(to), from_device = in_device_memory(from);
  if (kind != cudaMemcpyDefault) {
    const bool wants_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool wants_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device != wants_to || from_device != wants_from)
      fault("cudaMemcpy: direction ", names[kind], ", but the destination is ", to_device ? "device" : "host",
            " memory and the source ", from_device ? "device" : "host", " memory");
  }
  if (to_device && !is_device_range(to, bytes)) fault("cudaMemcpy: the destination has fewer than ", bytes, " bytes");
  if (from_device && !is_device_range(from, bytes)) fault("cudaMemcpy: the source has fewer than ", bytes, " bytes");
}

void check_shape(const void* kernel, dim3 grid, dim3 block) {
  const auto text = [](dim3 d) { return concat_text("(", d.x, ", ", d.y, ", ", d.z, ")"); };
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535)
    fault(kernel_name(kernel), ": bad launch configuration, grid ", text(grid),
          "; limits are 1 to (2147483647, 65535, 65535)");
  if (threads < 1 || threads > 1024 || block.z > 64)
    fault(kernel_name(kernel), ": bad launch configuration, block ", text(block),
          "; it needs 1 to 1024 threads, z at most 64");
}

}  // namespace

std::recursive_mutex& device_lock() {
  static auto* mutex = new std::recursive_mutex;
  return *mutex;
}

HostCalls host_calls() {
  const std::lock_guard lock(device_lock());
  return runtime().calls;
}
void reset_host_calls() { runtime().calls = {}; }
void wait_for_all() { synchronize(everything()); }

void enqueue(void* stream, std::function<void()> work) { enqueue_after(stream, {}, std::move(work)); }

void enqueue_launch(Call call, dim3 grid, dim3 block, size_t shared_bytes, void* stream) {
  const std::lock_guard lock(device_lock());
  check_shape(call.kernel, grid, block);
  const auto raised = runtime().shared_limit.find(call.kernel);
  const size_t limit = raised == runtime().shared_limit.end() ? kStaticSharedLimit : raised->second;
  if (shared_bytes > limit)
    fault(kernel_name(call.kernel), ": bad launch configuration, ", shared_bytes,
          " bytes of dynamic shared memory; the limit is ", limit);
  for (const void* pointer : call.pointers)
    if (pointer && !find_allocation(pointer))
      fault(kernel_name(call.kernel), ": argument ", pointer,
            in_device_memory(pointer) ? " is freed device memory" : " is a host pointer",
            "; kernels take pointers to live device memory");
  if (is_dry()) return note_launch(call, {}, {});
  enqueue(stream, [=, call = std::move(call)] { run_kernel(call, grid, block, shared_bytes); });
}

}  // namespace addp::emulator

using namespace addp::emulator;
#define LOCK const std::lock_guard lock(device_lock())

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorNotSupported:
      return "operation not supported";
  }
  return "unknown error";
}
const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
cudaError_t cudaPeekAtLastError() {
  LOCK;
  return runtime().last_error;
}
cudaError_t cudaGetLastError() {
  LOCK;
  return std::exchange(runtime().last_error, cudaSuccess);
}

// ---- The device -----------------------------------------------------------------------------------------------------
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  *p = cudaDeviceProp{"CPU emulator (no GPU)", size_t{1} << 38, kStaticSharedLimit, kSharedLimit, 7, 5, 4, 32, 1024};
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, device)) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return *value = p.maxThreadsPerBlock, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return *value = static_cast<int>(p.sharedMemPerBlock), cudaSuccess;
    // Clocks in kHz and a width in bits that no GPU has, so that nobody takes rates from them for real.
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
      return *value = 1000, cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
      return *value = 64, cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      return *value = p.multiProcessorCount, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = p.major, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      return *value = p.minor, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = static_cast<int>(p.sharedMemPerBlockOptin), cudaSuccess;
  }
  return result(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceSynchronize() {
  LOCK;
  count_wait("cudaDeviceSynchronize");
  synchronize(everything());
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  LOCK;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      static_cast<size_t>(value) > kSharedLimit)
    return result(cudaErrorInvalidValue);
  runtime().shared_limit[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

// ---- Memory ---------------------------------------------------------------------------------------------------------
cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  LOCK;
  count_allocation("cudaMalloc");
  *pointer = bytes ? allocate(bytes) : nullptr;
  return result(bytes && !*pointer ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t handle) {
  LOCK;
  Stream& stream = stream_of(handle);
  *pointer = bytes ? allocate(bytes) : nullptr;
  if (bytes && !*pointer) return result(cudaErrorMemoryAllocation);
  if (!bytes) return cudaSuccess;
  if (stream.capture) {
    stream.capture->memory[*pointer] = false;
    stream.capture->work.push_back([memory = *pointer] { refill(memory); });
    return cudaSuccess;
  }
  Runtime& r = runtime();
  r.pool_bytes += bytes;
  if (r.pool_bytes > r.pool_most) r.pool_most = r.pool_bytes, ++r.calls.pool_growths;
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  LOCK;
  if (!pointer) return cudaSuccess;
  count_allocation("cudaFree");
  synchronize(everything());
  const OpenMemory open;
  release(pointer, "cudaFree");
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t handle) {
  LOCK;
  if (!pointer) return cudaSuccess;
  Stream& stream = stream_of(handle);
  if (stream.capture) {
    const auto found = stream.capture->memory.find(pointer);
    if (found == stream.capture->memory.end() || std::exchange(found->second, true))
      return result(cudaErrorInvalidValue);  // on a GPU the second launch would free it again
    return cudaSuccess;
  }
  const Allocation* allocation = find_allocation(pointer);
  if (allocation) runtime().pool_bytes -= allocation->bytes;
  if (is_dry() && allocation && !allocation->filled) return release(pointer, "cudaFreeAsync"), cudaSuccess;
  enqueue_after(
      handle, {}, [=] { release(pointer, "cudaFreeAsync"); }, true);
  return cudaSuccess;
}
// The pool keeps nothing: memory that is given back is closed at once, so that a use after it shows.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = nullptr;
  return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  LOCK;
  count_allocation("cudaMallocHost");
  auto* memory = new char[bytes];
  runtime().pinned[memory] = bytes;
  *pointer = memory;
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) { return cudaMallocHost(pointer, bytes); }
cudaError_t cudaFreeHost(void* pointer) {
  LOCK;
  if (!pointer) return cudaSuccess;
  count_allocation("cudaFreeHost");
  synchronize(everything());
  auto* memory = static_cast<char*>(pointer);
  if (runtime().pinned.erase(memory) == 0) fault("cudaFreeHost: ", pointer, " did not come from cudaMallocHost");
  delete[] memory;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  LOCK;
  *total = size_t{1} << 38;
  *free = *total - live_bytes();
  return cudaSuccess;
}

// Pageable memory as CUDA documents it: copies from it are staged during the call, copies to it are complete at return.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  LOCK;
  if (bytes == 0) return cudaSuccess;
  check_copy(to, from, bytes, kind);
  const bool to_device = in_device_memory(to), from_device = in_device_memory(from);
  const bool pageable = (!to_device && !is_pinned(to)) || (!from_device && !is_pinned(from));
  if (pageable && stream_of(stream).capture)
    fault("cudaMemcpyAsync: host memory that is not page-locked, while the stream captures a graph");
  Point point;
  if (!from_device && !is_pinned(from)) {
    const auto* begin = static_cast<const char*>(from);
    auto staged = std::make_shared<std::vector<char>>(begin, begin + bytes);
    point = enqueue_after(stream, {}, [=] { std::memcpy(to, staged->data(), bytes); });
  } else {
    point = enqueue_after(stream, {}, [=] {
      check_copy(to, from, bytes, kind);  // neither may have been freed since
      std::memmove(to, from, bytes);
    });
  }
  if (to_device || is_pinned(to)) return cudaSuccess;
  count_wait("cudaMemcpyAsync");  // to pageable memory
  synchronize({point});
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  LOCK;
  count_wait("cudaMemcpy");
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  synchronize({{&runtime().default_stream, runtime().default_stream.sequence}});
  return error;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  LOCK;
  if (bytes == 0) return cudaSuccess;
  if (!is_device_range(to, bytes))
    fault("cudaMemset: ", bytes, " bytes at ", to, " are not inside one live device allocation");
  enqueue(stream, [=] {
    if (!is_device_range(to, bytes)) fault("cudaMemset: the memory at ", to, " was freed before the call ran");
    std::memset(to, value, bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }

// ---- Streams and events ---------------------------------------------------------------------------------------------
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  LOCK;
  auto* created = new Stream;
  created->blocking = !(flags & cudaStreamNonBlocking);
  runtime().streams.push_back(created);
  *stream = reinterpret_cast<cudaStream_t>(created);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
// Destroyed streams stay in memory: events may still point to them.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  LOCK;
  Stream& s = stream_of(stream);
  synchronize({{&s, s.sequence}});
  std::erase(runtime().streams, &s);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  LOCK;
  Stream& s = stream_of(stream);
  count_wait("cudaStreamSynchronize");
  if (&s != &runtime().default_stream) return synchronize({{&s, s.sequence}}), cudaSuccess;
  std::vector<Point> points{{&s, s.sequence}};
  for (Stream* other : runtime().streams)
    if (other->blocking) points.push_back({other, other->sequence});
  synchronize(points);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  LOCK;
  return stream_of(stream).queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  LOCK;
  const Point point = reinterpret_cast<Event*>(event)->point;
  if (point.stream) enqueue_after(stream, {point}, [] {});
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  LOCK;
  Event* e = reinterpret_cast<Event*>(event);
  if (e->point.stream) synchronize({e->point});
  delete e;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  LOCK;
  Event* e = reinterpret_cast<Event*>(event);
  e->point = enqueue_after(stream, {}, [e] { e->time = Clock::now(); });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  LOCK;
  check_no_capture("cudaEventQuery");
  const Point point = reinterpret_cast<Event*>(event)->point;
  const bool waiting =
      point.stream && !point.stream->queue.empty() && point.stream->queue.front().sequence <= point.sequence;
  return waiting ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  LOCK;
  count_wait("cudaEventSynchronize");
  const Event* e = reinterpret_cast<Event*>(event);
  if (e->point.stream) synchronize({e->point});
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  LOCK;
  const Event *a = reinterpret_cast<Event*>(start), *b = reinterpret_cast<Event*>(end);
  if (!a->point.stream || !b->point.stream) return result(cudaErrorInvalidResourceHandle);
  if (a->time == Clock::time_point{} || b->time == Clock::time_point{}) return result(cudaErrorNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(b->time - a->time).count();
  return cudaSuccess;
}

// ---- Graphs; a handle is a share of what was recorded
// ----------------------------------------------------------------
using SharedGraph = std::shared_ptr<RecordedGraph>;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  LOCK;
  Stream& s = stream_of(stream);
  if (!stream || s.capture) return result(cudaErrorInvalidValue);
  s.capture = std::make_shared<RecordedGraph>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  LOCK;
  const SharedGraph captured = std::exchange(stream_of(stream).capture, nullptr);
  *graph = nullptr;
  if (!captured) return result(cudaErrorInvalidValue);
  *graph = reinterpret_cast<cudaGraph_t>(new SharedGraph(captured));
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  LOCK;
  const auto& captured = *reinterpret_cast<SharedGraph*>(graph);
  for (const auto& [memory, freed] : captured->memory)
    if (!freed) fault("cudaGraphInstantiate: memory at ", memory, " is taken by the graph and not given back");
  *executable = reinterpret_cast<cudaGraphExec_t>(new SharedGraph(captured));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  LOCK;
  for (const auto& work : (*reinterpret_cast<SharedGraph*>(executable))->work) enqueue_after(stream, {}, work);
  return cudaSuccess;
}
static cudaError_t drop_graph(SharedGraph* graph) {
  if (graph->use_count() == 1) {
    synchronize(everything());
    const OpenMemory open;
    for (const auto& [memory, freed] : (*graph)->memory) release(memory, "cudaGraphDestroy");
  }
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  LOCK;
  return drop_graph(reinterpret_cast<SharedGraph*>(executable));
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  LOCK;
  return drop_graph(reinterpret_cast<SharedGraph*>(graph));
}
