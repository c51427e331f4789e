// What training needs around a model: starting values, optimizers, schedules, averages, state dicts.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "nn/init.h"
#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "nn/state_dict.h"
#include "tests/scratch.h"

using namespace addp;

namespace {

constexpr Options kDouble{DType::f64, Device::cpu};

NamedVar leaf(const std::string& name, std::vector<double> values, Shape shape) {
  return {name, Var(from_vector(values, std::move(shape)), true)};
}

void give(const NamedVar& p, const std::vector<double>& gradient) {
  p.var.node().grad = from_vector(gradient, p.var.shape());
}

double at(const Var& x, size_t i) { return to_vector<double>(x.value())[i]; }

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("schedule: warm-up, half cosine, end") {
  const CosineSchedule s{.base = 1e-3, .min = 1e-6, .warmup = 2, .total = 6};
  CHECK(s.at(0) == 0);
  CHECK(s.at(0.5) == doctest::Approx(2.5e-4));
  CHECK(s.at(2) == doctest::Approx(1e-3));
  CHECK(s.at(4) == doctest::Approx(1e-6 + (1e-3 - 1e-6) * 0.5));
  CHECK(s.at(6) == doctest::Approx(1e-6));
  CHECK(s.at(100) == doctest::Approx(1e-6));
  CHECK(CosineSchedule{.base = 1, .warmup = 0, .total = 0}.at(0) == 0);
}

TEST_CASE("layer-wise decay: the embedding is layer 0, the head is last") {
  CHECK(layer_of_parameter("cls_token", 12) == 0);
  CHECK(layer_of_parameter("pos_embed", 12) == 0);
  CHECK(layer_of_parameter("patch_embed.proj.weight", 12) == 0);
  CHECK(layer_of_parameter("blocks.0.norm1.weight", 12) == 1);
  CHECK(layer_of_parameter("blocks.11.mlp.fc2.bias", 12) == 12);
  CHECK(layer_of_parameter("fc_norm.weight", 12) == 13);
  CHECK(layer_scale("head.weight", 2, 0.65) == 1);
  CHECK(layer_scale("blocks.0.attn.qkv.weight", 2, 0.65) == doctest::Approx(0.65 * 0.65));
  CHECK_THROWS_AS(layer_of_parameter("blocks.12.norm1.weight", 12), Error);
}

TEST_CASE("AdamW: five steps against the formula, with decay by rank, layer scales and clipping") {
  const std::vector<double> start = {0.5, -1, 2, 0.25};
  NamedVar matrix = leaf("matrix", start, {2, 2}), vector = leaf("vector", start, {4});
  const AdamwConfig config{.beta1 = 0.8, .beta2 = 0.9, .weight_decay = 0.1, .clip_norm = 1};
  AdamW optimizer({matrix, vector}, config, [](const std::string& name) { return name == "matrix" ? 0.5 : 1.0; });
  std::vector<double> p[2] = {start, start}, m[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}}, v[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
  for (int t = 1; t <= 5; ++t) {
    const std::vector<double> g = {0.1 * t, -0.3, 0.7, t % 2 ? 1.0 : -1.0};
    give(matrix, g);
    give(vector, g);
    double squares = 0;
    for (double x : g) squares += 2 * x * x;
    const double norm = std::sqrt(squares), clip = std::min(1.0, 1 / (norm + 1e-6));
    CHECK(optimizer.step(0.01) == doctest::Approx(norm).epsilon(1e-12));
    CHECK(!matrix.var.grad().defined());
    for (size_t k = 0; k < 2; ++k) {
      const double lr = k == 0 ? 0.005 : 0.01, decay = k == 0 ? 0.1 : 0;
      for (size_t i = 0; i < 4; ++i) {
        const double gi = clip * g[i];
        p[k][i] -= lr * decay * p[k][i];
        m[k][i] = 0.8 * m[k][i] + 0.2 * gi;
        v[k][i] = 0.9 * v[k][i] + 0.1 * gi * gi;
        const double mh = m[k][i] / (1 - std::pow(0.8, t)), vh = v[k][i] / (1 - std::pow(0.9, t));
        p[k][i] -= lr * mh / (std::sqrt(vh) + 1e-8);
        CHECK(at(k == 0 ? matrix.var : vector.var, i) == doctest::Approx(p[k][i]).epsilon(1e-12));
      }
    }
  }
  CHECK(optimizer.steps() == 5);
}

TEST_CASE("AdamW: frozen and untouched parameters stay, a bad gradient stops the step") {
  NamedVar used = leaf("used", {1, 2}, {1, 2}), idle = leaf("idle", {3, 4}, {1, 2}), frozen = leaf("frozen", {5}, {1});
  frozen.var.set_needs_grad(false);
  AdamW optimizer({used, idle, frozen}, {});
  CHECK(optimizer.arena().slots().size() == 2);
  give(used, {1, 1});
  const Tensor gradient = used.var.grad();
  optimizer.step(0.1);
  CHECK(gradient.unique());  // nothing holds it any longer
  CHECK(at(used.var, 0) != 1);
  CHECK(at(idle.var, 0) == 3);
  CHECK(at(frozen.var, 0) == 5);

  const double before = at(used.var, 0);
  give(used, {1, 1});
  give(idle, {std::numeric_limits<double>::quiet_NaN(), 0});
  CHECK(has(message_of(ErrorKind::non_finite, [&] { optimizer.step(0.1); }), "'idle'"));
  CHECK(at(used.var, 0) == before);
  CHECK(optimizer.steps() == 1);
  CHECK_THROWS_AS(AdamW({frozen}, {}), Error);
}

TEST_CASE("AdamW: a saved state continues bit for bit") {
  const auto run = [](int steps, StateDict* saved, StateDict* weights, int save_at, bool resume) {
    Linear layer(3, 2, true, kDouble);
    init_transformer(layer, Rng(1));
    AdamW optimizer(parameters(layer), {});
    if (resume) {
      load_state_dict(layer, *weights);
      load_state_dict(optimizer, *saved);
    }
    const Var x = Var(full({4, 3}, 0.5, kDouble));
    for (int64_t s = optimizer.steps(); s < steps; ++s) {
      if (s == save_at && !resume) {
        for (auto& [name, t] : state_dict(optimizer)) (*saved)[name] = clone(t);
        for (auto& [name, t] : state_dict(layer)) (*weights)[name] = clone(t);
      }
      backward(mean(square(layer(x) + static_cast<double>(s))));
      optimizer.step(0.01);
    }
    return clone(layer.weight.value());
  };
  StateDict saved, weights;
  const Tensor whole = run(6, &saved, &weights, 3, false);
  CHECK(saved.count("exp_avg.weight") == 1);
  CHECK(saved.count("exp_avg_sq.bias") == 1);
  CHECK(same_bits(whole, run(6, &saved, &weights, 3, true)));
}

TEST_CASE("LARS against the formula") {
  NamedVar matrix = leaf("matrix", {3, 4}, {1, 2}), vector = leaf("vector", {3, 4}, {2});
  Lars optimizer({matrix, vector}, {.momentum = 0.9, .weight_decay = 0.1, .trust = 0.01});
  std::vector<double> p = {3, 4}, q = {3, 4}, mp = {0, 0}, mq = {0, 0};
  for (int t = 0; t < 3; ++t) {
    const std::vector<double> g = {1.0 - t, 2};
    give(matrix, g);
    give(vector, g);
    optimizer.step(0.5);
    const double d0 = g[0] + 0.1 * p[0], d1 = g[1] + 0.1 * p[1];
    const double scale = 0.01 * std::hypot(p[0], p[1]) / std::hypot(d0, d1);
    mp = {0.9 * mp[0] + scale * d0, 0.9 * mp[1] + scale * d1};
    mq = {0.9 * mq[0] + g[0], 0.9 * mq[1] + g[1]};
    for (size_t i = 0; i < 2; ++i) {
      p[i] -= 0.5 * mp[i], q[i] -= 0.5 * mq[i];
      CHECK(at(matrix.var, i) == doctest::Approx(p[i]).epsilon(1e-12));
      CHECK(at(vector.var, i) == doctest::Approx(q[i]).epsilon(1e-12));
    }
  }
}

TEST_CASE("moving average of weights: warm start, swap and back") {
  NamedVar w = leaf("w", {1}, {1});
  WeightEma ema({w}, 0.9);
  fill(w.var.value(), 2);
  ema.update();  // decay (1 + 0) / (10 + 0)
  ema.swap();
  CHECK(at(w.var, 0) == doctest::Approx(1 + 0.9));
  CHECK_THROWS_AS(ema.update(), Error);
  ema.swap();
  CHECK(at(w.var, 0) == 2);
  for (int i = 0; i < 200; ++i) ema.update();
  ema.swap();
  CHECK(at(w.var, 0) == doctest::Approx(2));
}

TEST_CASE("state dict: all that does not fit is reported at once, and nothing is loaded") {
  Block model(8, 2, 2, 0, {});
  StateDict state;
  for (auto& [name, t] : state_dict(model)) state[name] = full(t.shape(), 3);
  CHECK(load_state_dict(model, state).loaded.size() == 12);
  CHECK(at(model.mlp.fc1.weight, 0) == 3);

  StateDict wrong = state;
  for (auto& [name, t] : wrong) t = full(t.shape(), 4);
  wrong["attn.qkv.weight"] = zeros({24, 9});
  wrong.erase("norm1.bias");
  wrong["head.weight"] = zeros({2});
  const auto strict = [&] { load_state_dict(model, wrong, {.source = "a.safetensors"}); };
  const std::string text = message_of(ErrorKind::checkpoint, strict);
  for (const char* part : {"a.safetensors", "'attn.qkv.weight' is [24, 9], this model needs [24, 8]",
                           "missing: norm1.bias", "unexpected: head.weight", "another preset?"}) {
    CAPTURE(part);
    CHECK(has(text, part));
  }
  CHECK(at(model.mlp.fc1.weight, 0) == 3);

  wrong["attn.qkv.weight"] = zeros({24, 8}, kDouble);  // another dtype is no obstacle
  const LoadReport report = load_state_dict(model, wrong, {.lenient = true});
  CHECK(report.missing == std::vector<std::string>{"norm1.bias"});
  CHECK(report.unexpected == std::vector<std::string>{"head.weight"});
  CHECK(at(model.mlp.fc1.weight, 0) == 4);
  CHECK(at(model.norm1.bias, 0) == 3);

  state["norm1.num_batches_tracked"] = zeros({}, {DType::i64, Device::cpu});
  CHECK(load_state_dict(model, state).unexpected.empty());
  const auto foreign = [&] { load_state_dict(model, {{"x", zeros({1})}}, {.lenient = true}); };
  CHECK(has(message_of(ErrorKind::checkpoint, foreign), "none of this model's tensors"));
  CHECK(with_prefix_removed({{"vqgan.a", zeros({1})}, {"b", zeros({1})}}, "vqgan.").count("a") == 1);
}

TEST_CASE("state dict: long lists are capped") {
  VisionTransformer model({.width = 8, .depth = 4, .heads = 2}, {});
  StateDict state = state_dict(model);
  for (auto& [name, t] : state_dict(model)) {
    if (name.rfind("blocks.", 0) == 0) state.erase(name);
  }
  const auto load = [&] { load_state_dict(model, state); };
  CHECK(has(message_of(ErrorKind::checkpoint, load), "and 36 more"));
}

TEST_CASE("initialisation: by name, the same in both precisions") {
  const VitConfig config{.image_size = 8, .patch_size = 2, .width = 8, .depth = 2, .heads = 2};
  VitConfig deeper = config;
  deeper.depth = 3;
  VisionTransformer a(config, {}), b(config, kDouble), c(deeper, {});
  for (VisionTransformer* model : {&a, &b, &c}) initialize(*model, Rng(5));
  const StateDict sa = state_dict(a), sb = state_dict(b), sc = state_dict(c);
  for (const auto& [name, t] : sa) {
    CAPTURE(name);
    CHECK(same_bits(t, to(sb.at(name), {})));
    CHECK(same_bits(t, sc.at(name)));
  }
  const double bound = std::sqrt(6.0 / (8 + 32));
  double largest = 0;
  for (double w : to_vector<double>(a.blocks[0].mlp.fc1.weight.value())) largest = std::max(largest, std::abs(w));
  CHECK(largest <= bound);
  CHECK(largest > 0.9 * bound);
  CHECK(at(a.blocks[0].norm1.weight, 3) == 1);
  CHECK(at(a.head.bias, 0) == 0);
  CHECK(at(a.pos_embed, 0) == 0);                                             // the class token's row
  CHECK(at(a.pos_embed, 8 * (1 + 1) + 0) == doctest::Approx(std::sin(1.0)));  // column 1

  VqganConfig small;
  small.ch = 4, small.norm_groups = 2;
  Vqgan vqgan(small, {});
  initialize(vqgan, Rng(5));
  for (const NamedVar& p : parameters(vqgan)) {
    CAPTURE(p.name);
    const std::vector<double> values = to_vector<double>(p.var.value());
    if (p.var.rank() > 1) CHECK(values[0] != values[1]);
  }
  for (double e : to_vector<double>(vqgan.codebook().value())) CHECK(std::abs(e) <= 1.0 / 256);
}
