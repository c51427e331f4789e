// Starting values. Constructors leave weights at 0 and norms at 1 and 0; here the rest gets random numbers, each tensor
// from rng.fork(its name): adding a tensor changes no other.
#pragma once
#include "nn/discriminator.h"
#include "nn/vit.h"
#include "nn/vqgan.h"

namespace addp {

// ---- One tensor
void init_uniform(const Var& var, double low, double high, Rng rng);
void init_normal(const Var& var, double mean, double deviation, Rng rng);
// U(-a, a), a = sqrt(6 / (in + out)) of the matrix [out, everything else] (Glorot & Bengio 2010).
void init_xavier(const Var& weight, Rng rng);
// U(-a, a), a = 1 / sqrt(fan_in): PyTorch's default of convolutions and linear layers, for weight and bias.
void init_torch_default(const Var& var, int64_t fan_in, Rng rng);
// Positions of a grid x grid map after a zero row for the class token (MAE): half of D for the column, half for the
// row, each half sines then cosines of position / 10000^(i / (D / 4)). D a multiple of 4. -> [1, 1 + grid grid, D]
Tensor sincos_positions(int64_t grid, int64_t D, Options options);

// ---- Transformers: Xavier for every matrix (the patch projection as one), N(0, 0.02^2) for tokens, positions and
// embedding tables (*_token, *pos_*, *emb.*, *embeddings.*); everything else keeps its constructor's value.
void init_transformer_tensor(const std::string& name, const Var& var, Rng rng);
template <class Module>
void init_transformer(Module& module, const Rng& rng) {
  for (const NamedVar& p : parameters(module)) init_transformer_tensor(p.name, p.var, rng.fork(p.name));
}

// ---- Models
void initialize(VisionTransformer& model, const Rng& rng);  // positions start as sines and cosines
void initialize(Vqgan& model, const Rng& rng);              // PyTorch's default; codes U(-1/K, 1/K)
void initialize(Discriminator& model, const Rng& rng);      // taming's: N(0, 0.02^2), norm weights N(1, 0.02^2)

}  // namespace addp
