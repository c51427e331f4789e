// CUDA graphs: what a piece of host code launches, recorded once and started again by one call, without the host code.
//
// What may be recorded computes on the device only: no copy from or to the host, no wait. Sizes and scalar arguments
// are those of the recording. What changes from step to step is read from device memory: inputs from tensors that the
// caller fills (copy_into) before each launch, the learning rate as AdamW::set_schedule left it, and random numbers
// through the salt, which turns the recorded stream of an Rng into another one.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <functional>

#include "tensor/dispatch.h"

namespace addp {

class Graph {
 public:
  // Records what `record` launches; none of it is executed. Memory that it takes must be given back before it ends:
  // results go to tensors from outside. Throws Error(device) otherwise, and for what a recording cannot hold.
  Graph(Cuda dev, const std::function<void()>& record);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Starts everything recorded, in stream order; waits for nothing. Draws of stream s become those of stream s ^ salt:
  // for a step recorded with Rng a and replayed as if with Rng b, a.stream() ^ b.stream().
  void launch(uint64_t salt = 0);

 private:
  Cuda dev_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace addp
