// Optimizer, schedule and weight average of one model: what follows backward() in each stage.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "addp/config.h"
#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "nn/state_dict.h"

namespace addp {

class ModelTrainer {
 public:
  // `parameters` outlive the trainer. lr_scale(name): factor on one parameter's rate; empty: 1 for all.
  ModelTrainer(const std::vector<NamedVar>& parameters, const StageConfig& recipe,
               const ParameterArena::LrScale& lr_scale = {})
      : optimizer_(parameters, {recipe.beta1, recipe.beta2, 1e-8, recipe.weight_decay, recipe.clip_norm}, lr_scale),
        schedule_{recipe.learning_rate(), recipe.min_lr, static_cast<double>(recipe.warmup_steps),
                  static_cast<double>(recipe.steps)} {
    if (recipe.ema_decay > 0) average_.emplace(parameters, recipe.ema_decay);
  }

  double learning_rate(int64_t step) const { return schedule_.at(static_cast<double>(step)); }

  // The update of step number `step` from 0. Returns the norm of the gradients before clipping, for which it waits at
  // the end: everything else of the step is under way by then.
  double update(int64_t step) {
    optimizer_.start_step(learning_rate(step));
    if (average_) average_->update();
    return optimizer_.finish_step();
  }

  // Runs f with the averaged weights in place, if there are any.
  template <class F>
  auto with_average(F&& f) {
    struct Swap {
      WeightEma* average;
      explicit Swap(WeightEma* a) : average(a) {
        if (average) average->swap();
      }
      ~Swap() {
        if (average) average->swap();
      }
    } swapped(average_ ? &*average_ : nullptr);
    return f();
  }
  bool has_average() const { return average_.has_value(); }

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    optimizer_.visit(prefix, f);
    if (average_) average_->visit(prefix + "ema.", f);
  }

 private:
  AdamW optimizer_;
  CosineSchedule schedule_;
  std::optional<WeightEma> average_;
};

// A model's tensors, copied while the averaged weights are in place; empty without an average.
template <class Module>
StateDict averaged_state(Module& module, ModelTrainer& trainer) {
  StateDict state;
  if (!trainer.has_average()) return state;
  trainer.with_average([&] {
    for (const auto& [name, tensor] : state_dict(module)) state[name] = clone(tensor);
  });
  return state;
}

}  // namespace addp
