#include "addp/mlm_head.h"

#include "autograd/ops.h"

namespace addp {

MlmHead::MlmHead(int64_t width, int64_t vocabulary, Options options)
    : bias(parameter({1, 1, vocabulary}, options)), fc(width, width, true, options), ln(width, 1e-5, options) {}

Var MlmHead::operator()(const Var& x, const Var& word_embeddings) const {
  const Var transformed = ln(gelu(fc(x)));
  return linear(transformed, detach(word_embeddings), reshape(bias, {-1}));
}

}  // namespace addp
