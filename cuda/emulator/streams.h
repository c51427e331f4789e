// Streams of the emulator's runtime, inside: what runtime.cc and streams.cc share. A stream is a queue whose work waits
// until a synchronisation, an event or another stream asks for it, so that a missing synchronisation always shows.
#pragma once
#include <chrono>
#include <deque>
#include <memory>
#include <unordered_map>

#include "cuda/emulator/emulator.h"

namespace addp::emulator {

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

// The process' one.
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
Runtime& runtime();

// The default stream for null; a fault for one that does not exist.
Stream& stream_of(void* handle);
// Everything that has been given to all streams so far.
std::vector<Point> everything();
// Runs what lies before the points, and what that waits for. After a fault nothing more runs, but memory is given back.
void synchronize(const std::vector<Point>& points);
// work waits for `after`, and for the default stream as CUDA has it; a capturing stream records it instead. release:
// it gives memory back, and happens even after a fault.
Point enqueue_after(void* handle, std::vector<Point> after, std::function<void()> work, bool release = false);

// For calls that a capture forbids; the latter two also count them.
void check_no_capture(const char* call);
void count_wait(const char* call);
void count_allocation(const char* call);

// Keeps an error for cudaGetLastError.
cudaError_t result(cudaError_t error);

}  // namespace addp::emulator
