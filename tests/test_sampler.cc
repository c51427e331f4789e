// What the sampler promises: schedules, known tokens that stay, inpainting, its switches.
#include "addp/objective.h"
#include "addp/sampler.h"
#include "autograd/codes.h"
#include "tests/tiny_models.h"

namespace addp {

TEST_CASE("addp: schedules fall to one masked token") {
  SamplerConfig config;
  for (const char* schedule : {"cosine", "linear"}) {
    config.schedule = schedule;
    int64_t before = 256;
    for (int64_t s = 0; s < config.steps; ++s) {
      const int64_t now = masked_after(s, 256, config);
      CHECK(now <= before);
      CHECK(now >= 1);
      before = now;
    }
    CHECK(before == 1);
  }
  config.schedule = "cosine";
  CHECK(masked_after(9, 256, config) == 182);  // ceil(256 cos(pi/4))
}

TEST_CASE("addp: sampling keeps known tokens and unmasks by schedule") {
  TinyModels tiny(preset("tiny"), {});
  Rng rng(26);
  std::vector<SamplerState> states;
  const SamplerConfig config = tiny.config.sampler;
  const int64_t L = tiny.config.tokens();
  const Samples samples = sample(tiny.model, tiny.vqgan, start_sampling(3, L, {}), config, rng,
                                 [&](const SamplerState& state) { states.push_back(state); });
  REQUIRE(static_cast<int64_t>(states.size()) == config.steps);
  for (size_t s = 0; s < states.size(); ++s) {
    CHECK(ones_per_row(states[s].mask) == masked_after(static_cast<int64_t>(s), L, config));
    if (s == 0) continue;
    const std::vector<int64_t> before = to_vector<int64_t>(states[s - 1].codes),
                               now = to_vector<int64_t>(states[s].codes);
    const std::vector<float> masked = to_vector<float>(states[s - 1].mask),
                             masked_now = to_vector<float>(states[s].mask);
    for (size_t i = 0; i < now.size(); ++i) {
      if (masked[i] != 0) continue;
      CHECK(now[i] == before[i]);
      CHECK(masked_now[i] == 0);
    }
  }
  // The final decode has no soft token; the official sampler's image has one.
  const Tensor hard = decode_codes(tiny.vqgan, samples.codes);
  CHECK(same_bits(samples.image, clamp(Var(hard), 0, 1).value()));
  CHECK(!same_bits(states.back().image, hard));

  Rng same_rng(26);
  const Samples again = sample(tiny.model, tiny.vqgan, start_sampling(3, L, {}), config, same_rng);
  CHECK(same_bits(again.image, samples.image));
}

TEST_CASE("addp: inpainting never changes given tokens, and the encoder sees them") {
  TinyModels tiny(preset("tiny"), {});
  const Tensor codes = tiny.random_codes(2, 27);
  const int64_t L = tiny.config.tokens();
  std::vector<float> mask(static_cast<size_t>(2 * L));
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 2 == 0;
  SamplerState start = start_inpainting(tiny.vqgan, codes, from_vector(mask, {2, L}));
  CHECK(start.unknown == L / 2);
  CHECK(start.image.defined());
  for (bool pixels : {true, false}) {
    Rng rng(28);
    const Samples samples = pixels ? sample(tiny.model, tiny.vqgan, start, tiny.config.sampler, rng)
                                   : sample_predictor(tiny.predictor, tiny.vqgan, start, tiny.config.sampler, rng);
    const std::vector<int64_t> given = to_vector<int64_t>(codes), made = to_vector<int64_t>(samples.codes);
    int64_t changed = 0;
    for (size_t i = 0; i < given.size(); ++i) {
      if (mask[i] == 0) CHECK(made[i] == given[i]);
      changed += made[i] != given[i];
    }
    CHECK(changed > 0);
  }
  CHECK_THROWS_AS(start_inpainting(tiny.vqgan, codes, zeros({2, L})), Error);
}

TEST_CASE("addp: the first step does without an encoder pass") {
  // With every place masked the decoder must not see the latent at all.
  TinyModels tiny;
  const int64_t L = tiny.config.tokens();
  Rng rng(29);
  const Tensor all = ones({2, L}, kDouble), codes = tiny.random_codes(2, 30);
  const Var latent(rng.normal({2, 1 + L, tiny.config.model.width}, kDouble));
  CHECK(same_bits(tiny.model.decoder.forward(latent, codes, all).value(),
                  tiny.model.decoder.forward({}, codes, all).value()));
  CHECK_THROWS_AS(tiny.model.decoder.forward({}, codes, zeros({2, L}, kDouble)), Error);
}

TEST_CASE("addp: sampler switches") {
  const TinyModels tiny;
  const int64_t L = tiny.config.tokens();
  Rng rng(31);
  SamplerState start = start_sampling(2, L, kDouble);
  start.step = 2;  // of 4: half of the masked places become known
  const StepNoise noise = draw_step_noise(2, L, rng, kDouble);
  const Tensor probs = softmax(Var(rng.normal({2, L, tiny.config.codes()}, kDouble))).value();
  SamplerConfig config = tiny.config.sampler;
  const SamplerState plain = update_tokens(start, probs, noise, config);

  config.top_p = 1e-9;  // only the likeliest code is left
  CHECK(same_bits(update_tokens(start, probs, noise, config).codes, argmax(probs)));
  config.top_p = 1;
  config.anneal = false;
  const SamplerState constant = update_tokens(start, probs, noise, config);
  CHECK(same_bits(constant.codes, plain.codes));
  CHECK(!same_bits(constant.mask, plain.mask));
  config.schedule = "linear";
  CHECK(ones_per_row(update_tokens(start, probs, noise, config).mask) != ones_per_row(plain.mask));
  config.schedule = "cubic";
  CHECK_THROWS_AS(update_tokens(start, probs, noise, config), Error);
}

}  // namespace addp
