// A stage that trains one model: how a step ends, and what is saved and loaded, the same for all of them.
#pragma once
#include <optional>
#include <utility>
#include <vector>

#include "examples/model_trainer.h"
#include "examples/stage.h"

namespace addp {

template <class Model>
class ModelStage : public Stage {
 public:
  StateDict weights() override { return state_dict(model_); }
  StateDict averaged_weights() override { return averaged_state(model_, *trainer_); }

  StateDict optimizer_state() override {
    StateDict state;
    for (const NamedVar& entry : training_state()) state[entry.name] = entry.var.value();
    return state;
  }

  void load(const StateDict& weights, const StateDict& optimizer_state) override {
    load_state_dict(model_, weights, {"weights.safetensors"});
    load_state_dict(training_state(), optimizer_state, {"optimizer.safetensors"});
  }

 protected:
  // Derived classes give the model its starting values, then trainer_ its parameters.
  ModelStage(Model model, Options on) : on_(on), model_(std::move(model)) {}

  // What ends step number `step`: the gradients, the update, and what the log shows: the loss, parts() (Scalars), the
  // norm of the gradients, the rate. Whatever is read from the device waits for it, so nothing is before the update.
  template <class Parts>
  Scalars learn(const Var& loss, int64_t step, Parts&& parts) {
    backward(loss);
    const double norm = trainer_->update(step);
    Scalars shown = {{"loss", loss.item()}};
    for (auto& part : parts()) shown.push_back(std::move(part));
    shown.insert(shown.end(), {{"grad_norm", norm}, {"lr", trainer_->learning_rate(step)}});
    return shown;
  }

  // Everything besides the weights that a restart needs.
  virtual std::vector<NamedVar> training_state() { return tensors(*trainer_); }

  Options on_;
  Model model_;
  std::optional<ModelTrainer> trainer_;
};

}  // namespace addp
