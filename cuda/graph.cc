// Recording and replaying by CUDA's stream capture.
#include "cuda/graph.h"

#include "cuda/context.h"
#include "cuda/device.h"
#include "cuda/memory_pool.h"

namespace addp {

Graph::Graph(Cuda dev, const std::function<void()>& record) : dev_(dev) {
  synchronize(dev);
  const int64_t held = device_memory().in_use_bytes;
  cuda(cudaStreamBeginCapture(stream_of(dev), cudaStreamCaptureModeThreadLocal), "graph: begin");
  cudaGraph_t graph = nullptr;
  try {
    const Recording recording(dev);
    record();
  } catch (...) {
    cudaStreamEndCapture(stream_of(dev), &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();  // what was thrown says more
    throw;
  }
  cuda(cudaStreamEndCapture(stream_of(dev), &graph), "graph: end");
  const int64_t kept = device_memory().in_use_bytes - held;
  if (kept == 0) cuda(cudaGraphInstantiate(&executable_, graph, 0), "graph: instantiate");
  cuda(cudaGraphDestroy(graph), "graph: destroy");
  check_as(ErrorKind::device, kept == 0, "graph: what was recorded changed the memory held by ", kept,
           " bytes; results must go to tensors from outside");
}

Graph::~Graph() {
  if (executable_) cudaGraphExecDestroy(executable_);
}

void Graph::launch(uint64_t salt) {
  set_random_salt(dev_, salt);
  cuda(cudaGraphLaunch(executable_, stream_of(dev_)), "graph: launch");
  if (salt != 0) set_random_salt(dev_, 0);
}

}  // namespace addp
