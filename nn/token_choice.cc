#include "nn/token_choice.h"

#include <algorithm>

#include "autograd/codes.h"
#include "autograd/ops.h"

namespace addp {

constexpr double kExcluded = 1e9;  // taken off a logit, it leaves a probability of exactly 0

Tensor choice_probabilities(const Tensor& logits, const TokenChoice& choice) {
  const NoGrad no_grad;
  check(logits.rank() == 2, "token choice: logits must be [N, V], found ", logits.shape());
  check_as(ErrorKind::usage, choice.temperature > 0 && choice.top_k >= 0 && choice.top_p > 0 && choice.top_p <= 1,
           "token choice: expected temperature > 0, top_k >= 0 and top_p in (0, 1], found ", choice.temperature, ", ",
           choice.top_k, " and ", choice.top_p);
  Var x = affine(Var(logits), 1 / choice.temperature, 0);
  const int64_t N = logits.dim(0), V = logits.dim(1);
  if (choice.top_k > 0 && choice.top_k < V) {
    const std::vector<int64_t> count(static_cast<size_t>(N), choice.top_k);
    const Tensor kept = smallest_mask((-x).value(), count);
    x = x + affine(Var(kept), kExcluded, -kExcluded);
  }
  const Tensor probs = softmax(x).value();
  return choice.top_p < 1 ? top_p(probs, choice.top_p) : probs;
}

Tensor choose_tokens(const Tensor& logits, const TokenChoice& choice, Rng& rng) {
  if (choice.temperature == 0) return argmax(logits);
  const Tensor probs = choice_probabilities(logits, choice);
  return sample_categorical(probs, rng.uniform({probs.dim(0)}, probs.options()));
}

}  // namespace addp
