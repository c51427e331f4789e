// Streams, events and graphs of the emulator's runtime.
#include "cuda/emulator/streams.h"

#include <utility>

namespace addp::emulator {
namespace {

// More waiting work than this is done at once: memory that the queue will free adds up.
constexpr size_t kQueueLimit = 20000, kMemoryLimit = size_t{2} << 30;

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

}  // namespace

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

Point enqueue_after(void* handle, std::vector<Point> after, std::function<void()> work, bool release) {
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

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) runtime().last_error = error;
  return error;
}

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

}  // namespace addp::emulator

using namespace addp::emulator;
#define LOCK const std::lock_guard lock(device_lock())

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
