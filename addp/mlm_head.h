// The head that token predictor and token decoder share: a transformed feature compared with every word embedding.
#pragma once
#include <string>

#include "nn/layers.h"

namespace addp {

struct MlmHead {
  MlmHead(int64_t width, int64_t vocabulary, Options options);

  // LayerNorm(gelu(fc(x))) . word_embeddings^T + bias; LayerNorm eps 1e-5. The embeddings are detached: they learn as
  // an input table only. x: [B, N, D], word_embeddings: [V, D] -> logits [B, N, V].
  Var operator()(const Var& x, const Var& word_embeddings) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "bias", bias, Role::parameter);
    fc.visit(prefix + "fc.", f);
    ln.visit(prefix + "ln.", f);
  }

  Var bias;  // [1, 1, V]
  Linear fc;
  LayerNorm ln;
};

}  // namespace addp
