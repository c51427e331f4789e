// The transformer blocks of every model here: pre-norm, qkv bias, MLP, exact GELU, LayerNorm eps 1e-6.
#pragma once
#include <vector>

#include "addp/config.h"
#include "nn/transformer.h"

namespace addp {

std::vector<Block> make_blocks(const TransformerConfig& config, int64_t depth, int64_t heads, Options options);

// One after the other, at least one. rows: [B, M] i64, the places that are wanted, all of them where undefined: the
// last block computes no others. x: [B, N, D] -> [B, M, D]
Var run_blocks(const std::vector<Block>& blocks, Var x, const Mode& mode, const Tensor& rows = {});

}  // namespace addp
