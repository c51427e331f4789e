// All frozen and trained models of the tiny preset, with random weights, for tests of the method.
#pragma once
#include <vector>

#include "addp/addp.h"
#include "addp/masking.h"
#include "addp/token_predictor.h"
#include "nn/init.h"
#include "nn/vqgan.h"
#include "tests/compare.h"

namespace addp {

struct TinyModels {
  explicit TinyModels(Config config = preset("tiny"), Options options = kDouble)
      : config(config), vqgan(config.vqgan, options), predictor(config, options), model(config, options) {
    initialize(vqgan, Rng(1));
    initialize(predictor, Rng(2));
    initialize(model, Rng(3));
    // Larger embeddings than at the start of training, so that distributions are far from uniform.
    Rng rng(4);
    for (Var* table : {&predictor.token_emb.word_embeddings, &model.decoder.token_emb})
      copy_into(table->value(), rng.normal(table->shape(), options));
    set_trainable(vqgan, false);
    set_trainable(predictor, false);
  }

  Tensor random_codes(int64_t B, uint64_t seed) const {
    Rng rng(seed);
    std::vector<int64_t> codes(static_cast<size_t>(B * config.tokens()));
    for (int64_t& code : codes) code = rng.below(config.codes());
    return from_vector(codes, {B, config.tokens()});
  }
  NestedMasks random_masks(int64_t B, uint64_t seed) const {
    Rng rng(seed);
    return draw_nested_masks(B, config.tokens(), config.masking, rng, model.encoder.cls_token.options());
  }

  Config config;
  Vqgan vqgan;
  TokenPredictor predictor;
  Addp model;
};

}  // namespace addp
