// What the benchmark runs on our side. A case is prepared once, then run many times; compare.py does the same work in
// PyTorch beside it. Inputs are a formula of their index, so that both sides see the same numbers and a checksum of the
// result tells whether they computed the same thing.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "addp/config.h"
#include "examples/profile_report.h"
#include "tensor/tensor.h"

namespace addp {

struct BenchCase {
  std::function<double()> run;  // does the work once and returns a checksum where that costs nothing, else 0
  std::function<double()> checksum;
  HeldMemory held;  // of whole steps
};

// Entry i of input number k: sin(0.37 i + k), in f32. The same formula stands in peer.py.
Tensor bench_input(Shape shape, int k);

// One op family, forward only or forward and backward. dims: as the table in ops.cc says.
// Throws Error(usage) for an unknown family or a wrong number of dims.
BenchCase make_op_case(const std::string& family, bool backward, const std::vector<int64_t>& dims);

// A preset with fields changed (name=value); ids follow the sizes unless they are the official ones.
Config step_config(const std::string& preset, const std::vector<std::string>& assignments);

// A whole step: vqgan, vqgan_gan, predictor, addp (training), transformer (the predictor's step on given codes), sample
// (one batch, sampler.steps steps) or probe (100 steps of the linear probe).
// Weights and inputs are written to folder/*.safetensors for the peer; no folder: nowhere.
BenchCase make_step_case(const std::string& step, const Config& config, int64_t batch, const std::string& folder);

}  // namespace addp
