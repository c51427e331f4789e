// Trained networks as other commands use them: built from a run folder's configuration, loaded, without gradients.
#pragma once
#include <memory>
#include <string>

#include "addp/addp.h"
#include "addp/token_predictor.h"
#include "examples/run_config.h"
#include "nn/state_dict.h"
#include "nn/vqgan.h"

namespace addp {

// The weights file of a run folder's newest complete checkpoint: the moving average where there is one, else the
// weights themselves. Throws Error(checkpoint).
std::string weights_file(const std::string& run_folder);

// Each throws Error(usage) when the folder holds a run of another stage, Error(checkpoint) when weights do not fit.
std::unique_ptr<Vqgan> load_vqgan(const std::string& run_folder, Options options);
std::unique_ptr<TokenPredictor> load_predictor(const std::string& run_folder, Options options);
std::unique_ptr<Addp> load_addp(const std::string& run_folder, Options options);

// A tokenizer of either kind, for systems that only use its codes. Images are [B, 3, Hi, Wi] in [0, 1].
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual Tensor encode(const Tensor& images) const = 0;  // -> [B, L]
  virtual Tensor decode(const Tensor& codes) const = 0;   // [B, L] -> images, clamped
  virtual int64_t codes() const = 0;                      // K
  virtual int64_t patch_size() const = 0;                 // pixels a code covers in each direction
  virtual StateDict weights() = 0;
};
// Of a run of vqgan or vit-vqgan. image_size: of the images that it is going to read; 0: the run's.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& run_folder, Options options, int64_t image_size = 0);

// Throw Error(checkpoint) unless the network gives the codes that a configuration's transformers expect.
void check_fits(const Vqgan& vqgan, const Config& config, const std::string& run_folder);
void check_fits(const Tokenizer& tokenizer, const Config& config, const std::string& run_folder);
void check_fits(const TokenPredictor& predictor, const Config& config, const std::string& run_folder);

}  // namespace addp
