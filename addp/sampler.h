// Generation (Sec. 3.4): start with every place masked and alternate: tokens from pixels, pixels from tokens, fewer
// masked places each time. Also inpainting (some tokens given) and, for comparison, the token predictor's own sampling
// (MAGE).
#pragma once
#include <functional>

#include "addp/addp.h"
#include "addp/token_predictor.h"
#include "nn/vqgan.h"

namespace addp {

// Where the alternation stands.
struct SamplerState {
  int64_t step = 0;     // steps done
  Tensor codes;         // [B, L] i64; at masked places the latest draw
  Tensor mask;          // [B, L], 1 = still masked (unreliable), the same number in every image
  Tensor image;         // x_t [B, 3, Hi, Wi], decoded from known and soft tokens, not clamped; undefined before step 0
  int64_t unknown = 0;  // masked places an image had at the start
};

// The randomness of one step.
struct StepNoise {
  Tensor uniform;  // [B, L] in [0, 1): which code is drawn
  Tensor gumbel;   // [B, L], standard Gumbel: which places stay masked
};
StepNoise draw_step_noise(int64_t B, int64_t L, Rng& rng, Options options);

// Number of places that are masked after step s of N (s from 0): ceil(unknown * ratio), at least 1, where ratio is
// cos(pi/2 (s+1)/N) or 1 - (s+1)/N.
int64_t masked_after(int64_t step, int64_t unknown, const SamplerConfig& config);

// All places masked, no image.
SamplerState start_sampling(int64_t B, int64_t L, Options options);
// Inpainting: codes [B, L] are kept where mask [B, L] is 0. The image is decoded from them, the mean of the codebook
// standing in for unknown tokens. Every image must have the same number of unknown places, at least one.
SamplerState start_inpainting(const Vqgan& vqgan, const Tensor& codes, const Tensor& mask);

// Draws codes at masked places from probs and masks the least confident of them again. Known codes never change.
// probs: [B, L, K]. Serves both samplers; image is left as it is.
SamplerState update_tokens(const SamplerState& state, const Tensor& probs, const StepNoise& noise,
                           const SamplerConfig& config);

// One alternation: D's distribution, new tokens, new image. Without an image every place must be masked, and the
// encoder does not run.
SamplerState sampler_step(const Addp& model, const Vqgan& vqgan, const SamplerState& state, const StepNoise& noise,
                          const SamplerConfig& config);

// Called after each step, e.g. for the strip that shows the alternation.
using StepCallback = std::function<void(const SamplerState&)>;

struct Samples {
  Tensor codes;  // [B, L]
  Tensor image;  // [B, 3, Hi, Wi] in [0, 1]
};
// All steps from a start state.
Samples sample(const Addp& model, const Vqgan& vqgan, SamplerState start, const SamplerConfig& config, Rng& rng,
               const StepCallback& callback = {});
// MAGE's iterative decoding with the token predictor alone; no pixels take part until the end.
Samples sample_predictor(const TokenPredictor& predictor, const Vqgan& vqgan, SamplerState start,
                         const SamplerConfig& config, Rng& rng, const StepCallback& callback = {});

}  // namespace addp
