// How a token is drawn from a model's logits: temperature, then only the k likeliest, then only the likeliest that sum
// to p.
#pragma once
#include <string>

#include "tensor/random.h"
#include "tensor/tensor.h"

namespace addp {

struct TokenChoice {
  double temperature = 1;  // divides the logits; 0: always the likeliest token
  int64_t top_k = 0;       // only the k likeliest take part; 0: all
  double top_p = 1;        // of those, the smallest set of likeliest ones that sums to p; 1: all

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "temperature", temperature);
    f(prefix + "top_k", top_k);
    f(prefix + "top_p", top_p);
  }
};

// What is drawn from; temperature positive. logits: [N, V] -> probabilities [N, V], 0 where a token takes no part.
Tensor choice_probabilities(const Tensor& logits, const TokenChoice& choice);
Tensor choose_tokens(const Tensor& logits, const TokenChoice& choice, Rng& rng);  // [N, V] -> [N] i64

}  // namespace addp
