// Trained networks as other commands use them: built from a run folder's configuration, loaded, without gradients.
#pragma once
#include <memory>
#include <string>

#include "addp/addp.h"
#include "addp/token_predictor.h"
#include "examples/run_config.h"
#include "nn/vqgan.h"

namespace addp {

// The weights file of a run folder's newest complete checkpoint: the moving average where there is one, else the
// weights themselves. Throws Error(checkpoint).
std::string weights_file(const std::string& run_folder);

// Each throws Error(usage) when the folder holds a run of another stage, Error(checkpoint) when weights do not fit.
std::unique_ptr<Vqgan> load_vqgan(const std::string& run_folder, Options options);
std::unique_ptr<TokenPredictor> load_predictor(const std::string& run_folder, Options options);
std::unique_ptr<Addp> load_addp(const std::string& run_folder, Options options);

// Throw Error(checkpoint) unless the network gives the codes that a configuration's transformers expect.
void check_fits(const Vqgan& vqgan, const Config& config, const std::string& run_folder);
void check_fits(const TokenPredictor& predictor, const Config& config, const std::string& run_folder);

}  // namespace addp
