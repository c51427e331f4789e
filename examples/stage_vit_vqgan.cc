// ViT-VQGAN's tokenizer (Yu et al. 2022), with the losses that VQGAN is trained with.
#include "examples/run_config.h"
#include "examples/tokenizer_stage.h"
#include "nn/vit_vqgan.h"

namespace addp {

std::unique_ptr<Stage> make_vit_vqgan_stage(const Config& config, const TrainOptions& options) {
  // At first a transformer gives nearly the same vector for every patch, and most codes of a codebook that starts from
  // those are dead soon after. By the end of the warm-up it tells patches apart.
  const int64_t restart = config.train_vit_vqgan.warmup_steps;
  return std::make_unique<TokenizerStage<VitVqgan>>(config, config.vit_vqgan_config(), config.train_vit_vqgan,
                                                    "vit-vqgan", options.lpips, options.common.seed,
                                                    network_options(options.common), restart);
}

}  // namespace addp
