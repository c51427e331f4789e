// ADDP: pixel encoder and token decoder, under the flat names of the official checkpoints. What they are trained with
// is in objective.h, how they generate in sampler.h, how they recognise in recognition.h.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "addp/config.h"
#include "addp/pixel_encoder.h"
#include "addp/token_decoder.h"

namespace addp {

struct Addp {
  Addp(const Config& config, Options options);

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    encoder.visit(prefix, f);
    decoder.visit(prefix, f);
    for (auto& [name, var] : unused) f(prefix + name, var, Role::parameter);
  }

  Config config;
  PixelEncoder encoder;
  TokenDecoder decoder;
  std::vector<std::pair<std::string, Var>> unused;  // only with Config::unused_parameters
};

// Starting values (nn/init.h); the pixel encoder's positions start as sines and cosines.
void initialize(Addp& model, const Rng& rng);

}  // namespace addp
