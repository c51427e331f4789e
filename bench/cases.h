// What the benchmark runs on our side. A case is prepared once, then run many times; compare.py does the same work in
// PyTorch beside it. Inputs are a formula of their index, so that both sides see the same numbers and a checksum of the
// result tells whether they computed the same thing.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace addp {

struct BenchCase {
  std::function<double()> run;  // does the work once and returns a checksum where that costs nothing, else 0
  std::function<double()> checksum;
  double flops = 0;  // multiplications and additions of one run; 0: not counted
  double bytes = 0;  // least traffic to memory of one run; 0: not counted
};

// Entry i of input number k: sin(0.37 i + k), in f32. The same formula stands in peer.py.
Tensor bench_input(Shape shape, int k);

// One op family, forward only or forward and backward. dims: as the table in ops.cc says.
// Throws Error(usage) for an unknown family or a wrong number of dims.
BenchCase make_op_case(const std::string& family, bool backward, const std::vector<int64_t>& dims);

// A whole step of a preset: vqgan, vqgan_gan, predictor, addp (training), sample (one batch, sampler.steps steps) or
// probe (100 steps of the linear probe).
// Weights and inputs are written to folder/*.safetensors for the peer.
BenchCase make_step_case(const std::string& step, const std::string& preset, int64_t batch, const std::string& folder);

}  // namespace addp
