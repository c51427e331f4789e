// The training step of ADDP (Sec. 3.2, 3.3): make noisy pixels and targets with the frozen tokenizer and the frozen
// token predictor, then train encoder and decoder to find the targets. Step numbers are those of ADDP.md, "Training
// step".
#pragma once
#include "addp/addp.h"
#include "addp/masking.h"
#include "addp/token_predictor.h"
#include "nn/vqgan.h"

namespace addp {

// Sec. 3.1, token-to-pixel: the pixels of tokens that are partly reliable.
// Pixels are in [0, 1] but may leave it a little: nothing here clamps, the encoder does.
//   codes: [B, L], read where mask is 0; unreliable: embeddings [B, L, Dz], read where mask is 1
//   -> mixture of both [B, L, Dz]
Tensor mix_embeddings(const Vqgan& vqgan, const Tensor& codes, const Tensor& unreliable, const Tensor& mask);
Tensor decode_embeddings(const Vqgan& vqgan, const Tensor& embeddings);  // [B, L, Dz] -> [B, 3, Hi, Wi]
Tensor decode_codes(const Vqgan& vqgan, const Tensor& codes);            // [B, L] -> [B, 3, Hi, Wi]

// Embeddings of tokens that are only known as a distribution. probs: [B, L, K] -> [B, L, Dz]: the mean of the codes'
// embeddings (soft), or that of the likeliest code.
Tensor unreliable_embedding(const Vqgan& vqgan, const Tensor& probs, bool soft);

// The outcome of the diffusion process (Sec. 3.2), steps 3 and 4. Constants for the model that is trained.
struct Diffused {
  Tensor unreliable;   // [B, L, Dz], from P(codes, mask_t_next), to be read where mask_t_next is 1
  Tensor embeddings;   // [B, L, Dz], what the tokenizer's decoder reads: reliable and unreliable ones by mask_t
  Tensor noisy_image;  // x_t [B, 3, Hi, Wi], not clamped
  // q(z̄_{t-1} | z_t) = P(codes, mask_t) [B, L, K], to be read where mask_t is 1; one-hot codes under that ablation
  Tensor target_probs;
};
Diffused diffuse(const Vqgan& vqgan, const TokenPredictor& predictor, const Tensor& codes, const NestedMasks& masks,
                 const ObjectiveConfig& config);

// Everything that one training step computes. What the loss doesn't depend on is left out: in the last block of the
// encoder, unreliable places, which the decoder doesn't read (m in each image); in the decoder's, all others.
struct StepResult {
  Tensor codes;  // [B, L]
  NestedMasks masks;
  Diffused diffused;
  Var encoder_tokens;  // [B, 1 + L, D], what the encoder's blocks read
  Var latent;          // e_t = E(x_t), the rows reliable_rows(mask_t) [B, 1 + L - m, D]
  Var logits;          // of the unreliable places, unreliable_rows(mask_t) [B, m, V]
  Var loss;            // []
};

// Step 5 (Sec. 3.3): logits = D(E(x_t), codes, mask_t), cross entropy at the unreliable places.
StepResult denoise(const Addp& model, const Tensor& codes, const NestedMasks& masks, const Diffused& diffused,
                   const ObjectiveConfig& config, Mode mode = {});

// Steps 1 to 5. codes: [B, L], the tokenizer's, Vqgan::encode_codes(image), perhaps computed ahead of time. The
// switches are those of model.config.objective.
StepResult training_step(const Addp& model, const Vqgan& vqgan, const TokenPredictor& predictor, const Tensor& codes,
                         const NestedMasks& masks, Mode mode = {});
StepResult training_step(const Addp& model, const Vqgan& vqgan, const TokenPredictor& predictor, const Tensor& codes,
                         Rng& rng, Mode mode);

// Share of masked places whose most likely code is the true one: progress that the loss hides. codes, mask: [B, L];
// logits: of the m masked places of each image, [B, m, V].
double masked_accuracy(const Var& logits, const Tensor& codes, const Tensor& mask);

}  // namespace addp
