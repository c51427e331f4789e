// Profiles: what ops are said to cost, who claims which kernels, what a graph needs, and --profile of the program.
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "autograd/codes.h"
#include "autograd/cost.h"
#include "autograd/ops.h"
#include "nn/optimizer.h"
#include "tensor/files.h"
#include "tests/drive.h"

namespace addp {
namespace {

Var input(Shape shape, bool needs_grad = true) { return Var(Rng(7).normal(std::move(shape)), needs_grad); }

const ProfileRow* find(const Profile& profile, Phase phase, const std::string& name) {
  for (const ProfileRow& row : profile.rows()) {
    if (row.phase == phase && row.name == name) return &row;
  }
  return nullptr;
}

template <class F>
Profile profile_of(F&& f) {
  Profile profile;
  const ProfiledStep step(&profile);
  f();
  return profile;
}

struct Case {
  const char* op;
  double flops, backward_factor;
  std::function<Var()> run;
};

}  // namespace

TEST_CASE("profile: products cost what the formulas say, forward and backward") {
  const Var x = input({3, 5, 8}), w = input({6, 8}), b = input({6});
  const Var a = input({2, 3, 5}), at = input({2, 5, 3}), c = input({2, 5, 7}), ct = input({2, 7, 5});
  const Var image = input({2, 3, 6, 6}), kernel = input({4, 3, 3, 3}), pixels = input({2, 3, 6, 6}, false);
  const Var qkv = input({2, 5, 24});
  const std::vector<Case> cases = {{"linear", 2.0 * 15 * 6 * 8, 2, [&] { return linear(x, w, b); }},
                                   {"linear", 2.0 * 15 * 6 * 8, 1, [&] { return linear(detach(x), w, b); }},
                                   {"matmul", 2.0 * 2 * 3 * 5 * 7, 2, [&] { return matmul(a, c); }},
                                   {"matmul", 2.0 * 2 * 3 * 5 * 7, 2, [&] { return matmul(at, ct, true, true); }},
                                   {"conv2d", 2.0 * 2 * 4 * 6 * 6 * 27, 2,
                                    [&] {
                                      return conv2d(image, kernel, {}, 1, {1, 1, 1, 1});
                                    }},
                                   {"conv2d", 2.0 * 2 * 4 * 3 * 3 * 27, 1,
                                    [&] {
                                      return conv2d(pixels, kernel, {}, 2, {1, 1, 1, 1});
                                    }},
                                   {"attention", 4.0 * 2 * 5 * 5 * 8, 2.5, [&] { return attention(qkv, 2); }}};
  for (const Case& one : cases) {
    INFO(one.op);
    const Profile profile = profile_of([&] { backward(sum(one.run())); });
    const ProfileRow* forward = find(profile, Phase::forward, one.op);
    const ProfileRow* backward = find(profile, Phase::backward, one.op);
    REQUIRE(forward);
    REQUIRE(backward);
    CHECK(forward->calls == 1);
    CHECK(forward->cost.flops == one.flops);
    CHECK(backward->cost.flops == one.flops * one.backward_factor);
    CHECK(forward->seconds > 0);
    CHECK(profile.total_cost().flops == one.flops * (1 + one.backward_factor));
  }
}

TEST_CASE("profile: bytes are inputs and outputs once; views cost nothing") {
  const Var x = input({10, 8}), w = input({8}), b = input({8});
  const Profile profile = profile_of([&] { backward(sum(reshape(layer_norm(x, w, b, 1e-6), {80}))); });
  CHECK(find(profile, Phase::forward, "layer_norm")->cost.bytes == 4 * (80 + 8 + 8 + 80));
  CHECK(find(profile, Phase::backward, "layer_norm")->cost.bytes == 4 * (80 + 80 + 8 + 8 + 80 + 8 + 8));  // dy, x, dx
  CHECK(find(profile, Phase::forward, "reshape")->cost.bytes == 0);
}

TEST_CASE("profile: kernels without a graph, optimizer and sums of gradients have rows of their own") {
  const Var x = input({16, 16}), w = input({16, 16});
  AdamW optimizer({{"w", w}}, AdamwConfig{});
  const Profile profile = profile_of([&] {
    {
      const NoGrad no_grad;
      linear(x, w);
    }
    nearest_codes(x.value(), x.value());
    Rng(1).normal({4});
    const Var y = linear(x, w);
    backward(sum(y * y));
    optimizer.step(1e-3);
  });
  CHECK(find(profile, Phase::frozen, "linear")->calls == 1);
  CHECK(find(profile, Phase::frozen, "nearest_codes")->cost.flops == 2 * 16 * 16 * 16);
  CHECK(find(profile, Phase::frozen, "random numbers"));
  CHECK(find(profile, Phase::forward, "linear")->calls == 1);
  CHECK(find(profile, Phase::backward, "sums of gradients")->calls == 1);
  CHECK(find(profile, Phase::optimizer, "adamw")->cost.bytes == 7 * 4 * 16 * 16);
}

TEST_CASE("profile: off, nothing is counted, and inner steps count apart") {
  Profile outer, inner;
  const Var x = input({4, 4});
  {
    const ProfiledStep one(&outer);
    relu(x);
    {
      const ProfiledStep two(&inner);
      square(x);
      const ProfiledStep none(nullptr);
      exp(x);
    }
  }
  abs(x);
  REQUIRE(outer.rows().size() == 1);
  CHECK(outer.rows()[0].name == "relu");
  REQUIRE(inner.rows().size() == 1);
  CHECK(inner.rows()[0].name == "square");
  CHECK(outer.steps == 1);
  CHECK(outer.seconds >= inner.seconds);
  CHECK(current_profile == nullptr);
}

TEST_CASE("profile: a graph needs what its closures read, each tensor once") {
  const Var x = input({10, 8}, false), w = input({6, 8}), v = input({6, 6});
  CHECK(activations_needed(linear(x, w)) == 4 * 80);
  CHECK(activations_needed(linear(x, reshape(input({2, 3, 8}), {6, 8}))) == 4 * 80);  // a view of the parameter
  const Var h = linear(x, w), y = linear(h, v) + h;                                   // adding keeps nothing
  CHECK(activations_needed(y) == 4 * (80 + 60));
  CHECK(activations_needed(gelu(y)) == 4 * (80 + 60 + 60));
  const Var g = bias_gelu(h, input({6}));
  CHECK(activations_needed(linear(g, v)) == 4 * (80 + 60));  // h; of it the layer computes g again
  CHECK(activations_needed(square(g)) == 4 * (80 + 60 + 60));
  const Var again = linear(x, w, {}, true);
  CHECK(activations_needed(linear(bias_gelu(again, input({6})), v)) == 4 * 80);
  CHECK(activations_needed(softmax(reshape(linear(x, w), {60}))) == 4 * (80 + 60));
}

TEST_CASE("program: --profile explains a step and changes nothing") {
  const ScratchFolder folder;
  for (const std::string stage : {"vqgan", "addp"}) {
    INFO(stage);
    const Outcome outcome = run_well(train_tiny(stage, folder / stage, 5) + Words{"--profile"});
    CHECK(outcome.out.find("profile of 3 steps") != std::string::npos);
    CHECK(outcome.out.find("outside kernels") != std::string::npos);
    CHECK(outcome.out.find("activations before backward") != std::string::npos);
    const auto json = nlohmann::json::parse(read_file(folder / (stage + "/profile.json")));
    double share = 0, seconds = 0;
    std::set<std::string> phases;
    for (const auto& row : json["rows"]) {
      share += row["share"].get<double>();
      seconds += row["seconds"].get<double>();
      phases.insert(row["phase"]);
    }
    CHECK(share == doctest::Approx(1).epsilon(1e-6));
    CHECK(seconds == doctest::Approx(json["seconds_per_step"].get<double>()).epsilon(1e-6));
    CHECK(json["rows"].back()["op"] == "outside kernels");
    CHECK(json["rows"].back()["seconds"] >= 0);
    for (const char* phase : {"data", "frozen", "forward", "backward", "optimizer"}) CHECK(phases.count(phase) == 1);
    for (const auto& [kind, bytes] : json["memory"].items()) CHECK_MESSAGE(bytes["held"] >= 0, kind);
    CHECK(json["memory"]["activations before backward"]["needed"] > 0);

    run_well(train_tiny(stage, folder / (stage + "_plain"), 5));
    CHECK(bytes_of(newest(folder / stage)) == bytes_of(newest(folder / (stage + "_plain"))));
    CHECK(!fs::exists(folder / (stage + "_plain/profile.json")));
  }
}

}  // namespace addp
