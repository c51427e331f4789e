// Arenas, AdamW, LARS and the moving average of weights.
#include "nn/optimizer.h"

#include <algorithm>
#include <cmath>

#include "tensor/dispatch.h"

namespace addp {

constexpr int64_t kAlignment = 16;  // elements: every parameter starts at a cache line in either float type
constexpr Options kCounter{DType::i64, Device::cpu};

static void sum_of_squares(const Tensor& result, const Tensor& x) {
  dispatch(x, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::sum_squares<T>(dev, result.ptr<double>(), x.ptr<T>(), x.numel());
  });
}

static double norm(const Tensor& x) {
  const Tensor squares = empty({}, {DType::f64, x.device()});
  sum_of_squares(squares, x);
  return std::sqrt(squares.item());
}

// For a profile: the kernels just called read or wrote `passes` times as much as x holds.
static void claim(const char* name, const Tensor& x, double passes) {
  claim_kernels(Phase::optimizer, name, [&] { return Cost{0, passes * static_cast<double>(x.bytes())}; });
}

// ---- Arena

ParameterArena::ParameterArena(const std::vector<NamedVar>& parameters, double weight_decay, const LrScale& lr_scale) {
  for (const NamedVar& p : parameters) {
    if (!p.var.needs_grad()) continue;
    const double decay = p.var.rank() > 1 ? weight_decay : 0;
    slots_.push_back(
        {.name = p.name, .var = p.var, .lr_scale = lr_scale ? lr_scale(p.name) : 1, .weight_decay = decay});
  }
  check(!slots_.empty(), "optimizer: there are no parameters to train");
  std::stable_sort(slots_.begin(), slots_.end(), [](const ParameterSlot& a, const ParameterSlot& b) {
    return std::pair(a.lr_scale, a.weight_decay) < std::pair(b.lr_scale, b.weight_decay);
  });
  for (ParameterSlot& slot : slots_) {
    slot.begin = size_;
    size_ += (slot.var.numel() + kAlignment - 1) / kAlignment * kAlignment;
  }
  const Options options = slots_[0].var.options();
  values_ = zeros({size_}, options);
  if (options.device != Device::cpu) gradients_ = zeros({size_}, options);
  squares_ = zeros({}, {DType::f64, options.device});
  for (ParameterSlot& slot : slots_) {
    const Options own = slot.var.options();
    check(own.dtype == options.dtype && own.device == options.device, "optimizer: '", slot.name, "' is ",
          dtype_name(own.dtype), ", '", slots_[0].name, "' is ", dtype_name(options.dtype),
          "; all must share dtype and device");
    const Tensor home = view(values_, slot);
    copy_into(home, slot.var.value());
    slot.var.set_value(home);
  }
}

void ParameterArena::collect_gradients() {
  for (ParameterSlot& slot : slots_) {
    slot.gradient = slot.var.grad();
    slot.var.clear_grad();
  }
  if (gradients_.defined()) {
    for (ParameterSlot& slot : slots_) {
      const Tensor home = view(gradients_, slot);
      if (!slot.gradient.defined()) {
        fill(home, 0);
        continue;
      }
      copy_into(home, slot.gradient);
      slot.gradient = home;
    }
    sum_of_squares(squares_, gradients_);
  } else {
    // From the last to the first: the update then finds the first ones in the cache.
    double total = 0;
    for (size_t i = slots_.size(); i-- > 0;) {
      if (!slots_[i].gradient.defined()) continue;
      sum_of_squares(squares_, slots_[i].gradient);
      total += squares_.item();
    }
    fill(squares_, total);
  }
  claim("collect gradients", values_, gradients_.defined() ? 3 : 1);  // read for the norm; before it, copied
}

void ParameterArena::drop_gradients() {
  for (ParameterSlot& slot : slots_) slot.gradient = {};
}

double ParameterArena::gradient_norm() const {
  const double norm = std::sqrt(squares_.item());
  if (std::isfinite(norm)) return norm;
  for (const ParameterSlot& slot : slots_) {
    check_as(ErrorKind::non_finite, !slot.gradient.defined() || all_finite(slot.gradient), "gradient of '", slot.name,
             "' is NaN or infinite");
  }
  fail(ErrorKind::non_finite, "the norm of all gradients overflows");
}

void ParameterArena::for_each_run(
    const std::function<void(int64_t begin, int64_t end, const ParameterSlot&)>& f) const {
  for (size_t first = 0; first < slots_.size();) {
    const ParameterSlot& slot = slots_[first];
    size_t last = first + 1;
    while (gradients_.defined() && last < slots_.size() && slots_[last].gradient.defined() == slot.gradient.defined() &&
           slots_[last].lr_scale == slot.lr_scale && slots_[last].weight_decay == slot.weight_decay)
      ++last;
    const int64_t end = last < slots_.size() ? slots_[last].begin : size_;
    if (slot.gradient.defined()) f(slot.begin, gradients_.defined() ? end : slot.begin + slot.var.numel(), slot);
    first = last;
  }
}

// A view for each parameter, for checkpoints.
static std::vector<Var> views(const ParameterArena& arena, const Tensor& state) {
  std::vector<Var> list;
  for (const ParameterSlot& slot : arena.slots()) list.emplace_back(arena.view(state, slot));
  return list;
}

// ---- AdamW

AdamW::AdamW(const std::vector<NamedVar>& parameters, const AdamwConfig& config,
             const ParameterArena::LrScale& lr_scale)
    : config_(config),
      arena_(parameters, config.weight_decay, lr_scale),
      means_(zeros_like(arena_.values())),
      squares_(zeros_like(arena_.values())),
      schedule_(zeros({3}, {DType::f64, arena_.values().device()})),
      mean_views_(views(arena_, means_)),
      square_views_(views(arena_, squares_)),
      steps_(full({}, 0, kCounter)) {}

int64_t AdamW::steps() const { return *steps_.value().ptr<int64_t>(); }

void AdamW::set_schedule(double learning_rate) {
  const auto t = static_cast<double>(steps() + 1);
  const std::vector<double> values = {learning_rate, 1 - std::pow(config_.beta1, t), 1 - std::pow(config_.beta2, t)};
  copy_into(schedule_, from_vector(values, {3}));
}

void AdamW::launch() {
  arena_.collect_gradients();
  kernel::AdamwStep s{};
  s.beta1 = config_.beta1, s.beta2 = config_.beta2, s.eps = config_.eps, s.clip_norm = config_.clip_norm;
  arena_.for_each_run([&](int64_t begin, int64_t end, const ParameterSlot& slot) {
    s.lr_scale = slot.lr_scale, s.decay = slot.weight_decay;
    dispatch(arena_.values(), [&](auto dev, auto type) {
      using T = decltype(type);
      kernel::adamw<T>(dev, arena_.values().ptr<T>() + begin, means_.ptr<T>() + begin, squares_.ptr<T>() + begin,
                       slot.gradient.ptr<T>(), end - begin, s, schedule_.ptr<double>(),
                       arena_.gradient_squares().ptr<double>());
    });
  });
  claim("adamw", arena_.values(), 7);  // reads weights, two moments and gradients; writes all but the last
}

double AdamW::finish_step() {
  const double norm = arena_.gradient_norm();
  arena_.drop_gradients();
  ++*steps_.value().ptr<int64_t>();
  return norm;
}

// ---- LARS

Lars::Lars(const std::vector<NamedVar>& parameters, const LarsConfig& config)
    : config_(config),
      arena_(parameters, config.weight_decay),
      momenta_(zeros_like(arena_.values())),
      momentum_views_(views(arena_, momenta_)) {}

double Lars::step(double learning_rate) {
  arena_.collect_gradients();
  const double gradient_norm = arena_.gradient_norm();
  for (size_t i = 0; i < arena_.slots().size(); ++i) {
    const ParameterSlot& slot = arena_.slots()[i];
    if (!slot.gradient.defined()) continue;
    const Tensor value = slot.var.value(), gradient = slot.gradient;
    dispatch(value, [&](auto dev, auto type) {
      using T = decltype(type);
      double scale = 1;
      if (value.rank() > 1) {
        const Tensor decayed = clone(gradient);
        kernel::add_scaled<T>(dev, decayed.ptr<T>(), value.ptr<T>(), value.numel(), slot.weight_decay);
        const double value_norm = norm(value), step_norm = norm(decayed);
        if (value_norm > 0 && step_norm > 0) scale = config_.trust * value_norm / step_norm;
      }
      kernel::momentum<T>(dev, value.ptr<T>(), momentum_views_[i].value().ptr<T>(), gradient.ptr<T>(), value.numel(),
                          learning_rate, config_.momentum, slot.weight_decay, scale);
    });
  }
  arena_.drop_gradients();
  claim("lars", arena_.values(), 10);  // clone, decay and norms of it, then the update
  return gradient_norm;
}

// ---- Moving average of weights

WeightEma::WeightEma(const std::vector<NamedVar>& parameters, double decay)
    : parameters_(parameters), decay_(decay), updates_(full({}, 0, kCounter)) {
  check(decay >= 0 && decay < 1, "weight average: decay must lie in [0, 1), found ", decay);
  for (const NamedVar& p : parameters_) averages_.emplace_back(clone(p.var.value()));
}

void WeightEma::update() {
  check(!swapped_, "weight average: update() while the averages stand in for the weights");
  const auto n = static_cast<double>((*updates_.value().ptr<int64_t>())++);
  const double decay = std::min(decay_, (1 + n) / (10 + n));
  for (size_t i = 0; i < averages_.size(); ++i) {
    const Tensor average = averages_[i].value(), weight = parameters_[i].var.value();
    dispatch(average, [&](auto dev, auto type) {
      using T = decltype(type);
      kernel::lerp<T>(dev, average.ptr<T>(), weight.ptr<T>(), average.numel(), 1 - decay);
    });
    claim("weight average", average, 3);
  }
}

void WeightEma::swap() {
  for (size_t i = 0; i < averages_.size(); ++i) {
    const Tensor weight = parameters_[i].var.value();
    parameters_[i].var.set_value(averages_[i].value());
    averages_[i].set_value(weight);
  }
  swapped_ = !swapped_;
}

}  // namespace addp
