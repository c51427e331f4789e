#include "addp/blocks.h"

namespace addp {

std::vector<Block> make_blocks(const TransformerConfig& config, int64_t depth, int64_t heads, Options options) {
  std::vector<Block> blocks;
  for (int64_t i = 0; i < depth; ++i) {
    blocks.emplace_back(config.width, heads, config.mlp_ratio, 0.0, options);
    blocks.back().mlp.recompute = config.recompute_mlp;
  }
  return blocks;
}

Var run_blocks(const std::vector<Block>& blocks, Var x, const Mode& mode, const Tensor& rows) {
  for (size_t i = 0; i < blocks.size(); ++i) x = blocks[i](x, mode, i + 1 == blocks.size() ? rows : Tensor());
  return x;
}

}  // namespace addp
