// Stage 1: the tokenizer learns to turn images into codes and back (VQGAN, Esser et al. 2021).
#include "examples/run_config.h"
#include "examples/tokenizer_stage.h"

namespace addp {

std::unique_ptr<Stage> make_vqgan_stage(const Config& config, const TrainOptions& options) {
  return std::make_unique<TokenizerStage<Vqgan>>(config, config.vqgan, config.train_vqgan, "vqgan", options.lpips,
                                                 options.common.seed, network_options(options.common));
}

}  // namespace addp
