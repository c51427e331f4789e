// The transformer blocks of every model here: pre-norm, qkv bias, MLP, exact GELU, LayerNorm eps 1e-6.
#pragma once
#include <vector>

#include "addp/config.h"
#include "nn/transformer.h"

namespace addp {

std::vector<Block> make_blocks(const TransformerConfig& config, int64_t depth, int64_t heads, Options options);

}  // namespace addp
