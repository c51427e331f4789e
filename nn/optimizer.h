// AdamW and LARS over flat arenas: parameters and moments each lie in one block of memory, on the device gradients too,
// so that a step is a few long kernel calls there; the CPU reads gradients where the backward pass left them. Also
// gradient clipping and the moving average of weights.
// Parameters that need no gradient (frozen) are left out; those that got none in a step are left as they are.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "nn/module.h"

namespace addp {

// One parameter's place in the arenas and its own settings.
struct ParameterSlot {
  std::string name;
  Var var;
  int64_t begin = 0;        // first element in the arenas
  double lr_scale = 1;      // factor on the learning rate (layer-wise decay)
  double weight_decay = 0;  // 0 for tensors with one dimension
  Tensor gradient = {};     // in the present step; undefined when none came
};

// Moves parameters, and gradients on the device, into arenas. The Vars keep their shapes and names; their values become
// views.
class ParameterArena {
 public:
  using LrScale = std::function<double(const std::string& name)>;

  // All parameters must share dtype and device. Order: equal settings together, otherwise as given.
  ParameterArena(const std::vector<NamedVar>& parameters, double weight_decay, const LrScale& lr_scale = {});

  // Takes the gradients that backward() left (and clears them there) and sums their squares. Waits for nothing.
  void collect_gradients();
  void drop_gradients();                                       // lets their memory go, once they were used
  const Tensor& gradient_squares() const { return squares_; }  // their sum, [] f64 beside the gradients
  // The Euclidean norm of what was collected; waits for the device. Throws Error(non_finite) naming the first parameter
  // whose gradient is not finite.
  double gradient_norm() const;

  // Calls f(begin, end, slot) for runs of parameters with a gradient and equal settings, whose gradients follow each
  // other in memory from slot.gradient on: on the device as long as they come, on the CPU one parameter each.
  void for_each_run(const std::function<void(int64_t begin, int64_t end, const ParameterSlot&)>& f) const;

  Tensor view(const Tensor& arena, const ParameterSlot& slot) const { return arena.view(slot.begin, slot.var.shape()); }
  const std::vector<ParameterSlot>& slots() const { return slots_; }
  int64_t size() const { return size_; }
  const Tensor& values() const { return values_; }

 private:
  std::vector<ParameterSlot> slots_;
  int64_t size_ = 0;  // elements, padding included
  Tensor values_, squares_;
  Tensor gradients_;  // undefined on the CPU
};

struct AdamwConfig {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.05;  // only on tensors with more than one dimension
  double clip_norm = 0;        // largest norm of all gradients together; 0: no clipping
};

// AdamW (Loshchilov & Hutter 2019) with PyTorch's formula; clipping as torch.nn.utils.clip_grad_norm_.
class AdamW {
 public:
  // lr_scale(name): a factor on the learning rate of one parameter; empty: 1 for all.
  AdamW(const std::vector<NamedVar>& parameters, const AdamwConfig& config,
        const ParameterArena::LrScale& lr_scale = {});

  // Updates all parameters from the gradients that backward() left, and clears those. Returns the norm of the gradients
  // before clipping. Throws Error(non_finite) and changes nothing when a gradient is NaN or infinite.
  double step(double learning_rate) {
    start_step(learning_rate);
    return finish_step();
  }
  // The same in two parts: the first starts all the work and waits for none of it, the second waits, and counts the
  // step. start_step itself is set_schedule, which sends three numbers to the device, and launch, which only computes.
  void start_step(double learning_rate) {
    set_schedule(learning_rate);
    launch();
  }
  double finish_step();
  void set_schedule(double learning_rate);
  void launch();
  int64_t steps() const;  // done so far

  const ParameterArena& arena() const { return arena_; }

  // The state for checkpoints: "step", "exp_avg.NAME" and "exp_avg_sq.NAME".
  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "step", steps_, Role::buffer);
    for (size_t i = 0; i < arena_.slots().size(); ++i) {
      f(prefix + "exp_avg." + arena_.slots()[i].name, mean_views_[i], Role::buffer);
      f(prefix + "exp_avg_sq." + arena_.slots()[i].name, square_views_[i], Role::buffer);
    }
  }

 private:
  AdamwConfig config_;
  ParameterArena arena_;
  Tensor means_, squares_;  // first and second moments
  Tensor schedule_;         // [3] f64, see kernel::adamw
  std::vector<Var> mean_views_, square_views_;
  Var steps_;  // i64 scalar on the CPU
};

struct LarsConfig {
  double momentum = 0.9, weight_decay = 0, trust = 0.001;
};

// LARS (You et al. 2017) as MAE's linear probe uses it: tensors with more than one dimension are decayed and step in
// proportion to |p| / |g + decay p|; the others do plain momentum.
class Lars {
 public:
  Lars(const std::vector<NamedVar>& parameters, const LarsConfig& config);

  double step(double learning_rate);  // as AdamW::step

  // The state for checkpoints: "momentum.NAME".
  template <class F>
  void visit(const std::string& prefix, F&& f) {
    for (size_t i = 0; i < arena_.slots().size(); ++i) {
      f(prefix + "momentum." + arena_.slots()[i].name, momentum_views_[i], Role::buffer);
    }
  }

 private:
  LarsConfig config_;
  ParameterArena arena_;
  Tensor momenta_;
  std::vector<Var> momentum_views_;
};

// Moving average of weights: average += (1 - d) (weight - average), d = min(decay, (1 + n) / (10 + n)) after n updates,
// so that the first averages forget the random start.
class WeightEma {
 public:
  WeightEma(const std::vector<NamedVar>& parameters, double decay);

  void update();
  // Exchanges the model's weights with the averages, e.g. to sample; a second call puts them back. No optimizer step
  // and no update() in between.
  void swap();

  // The state for checkpoints: "updates" and "NAME".
  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "updates", updates_, Role::buffer);
    for (size_t i = 0; i < averages_.size(); ++i) f(prefix + parameters_[i].name, averages_[i], Role::buffer);
  }

 private:
  std::vector<NamedVar> parameters_;
  std::vector<Var> averages_;
  double decay_;
  Var updates_;  // i64 scalar on the CPU
  bool swapped_ = false;
};

}  // namespace addp
