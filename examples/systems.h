// Every trained system behind one interface, so that sampling, probing and metrics treat ADDP and its neighbours alike:
// a run folder goes in, images can be drawn from it and features of images read from it.
#pragma once
#include <memory>
#include <string>

#include "examples/run_config.h"
#include "tensor/random.h"

namespace addp {

// random: the weights that the run's training started from, the control that every feature must beat. Frozen networks
// that the run only reads (its tokenizer) are the trained ones in either case.
enum class Weights { trained, random };

class System {
 public:
  explicit System(RunConfig run) : run_(std::move(run)) {}
  virtual ~System() = default;

  const RunConfig& run() const { return run_; }
  virtual std::string name() const = 0;  // for tables: "ADDP", "MAGE", ...

  // Images by the system's own sampler with the run's settings -> [count, 3, Hi, Wi] in [0, 1], on the system's device.
  // Throws Error(usage) where a system does not generate.
  virtual Tensor draw(int64_t count, Rng& rng) const;

  // What the representation says at each place of the token grid, raster order, nothing recorded.
  //   images: [B, 3, Hi, Wi] in [0, 1], any device -> [B, L, D], L = grid^2
  virtual Tensor tokens(const Tensor& images) const = 0;
  virtual int64_t grid() const { return run_.config.grid(); }

 private:
  RunConfig run_;
};

// The system of a run folder; the networks it was trained with are found through its configuration. Throws
// Error(usage) for runs that are no system by themselves (tokenizers), Error(checkpoint) when weights do not fit.
std::unique_ptr<System> open_system(const std::string& run_folder, Options options, Weights weights = Weights::trained);
// The same with `run` in place of the folder's own configuration, for other sampling settings or another tokenizer.
std::unique_ptr<System> open_system(const std::string& run_folder, RunConfig run, Options options,
                                    Weights weights = Weights::trained);

// Means of tokens [B, L, D]: over all places -> [B, D]; in cells x cells parts of the image, one after another in
// raster order -> [B, cells^2 D]. cells divides the grid's side.
Tensor mean_over_tokens(const Tensor& tokens);
Tensor mean_over_cells(const Tensor& tokens, int64_t cells);

}  // namespace addp
