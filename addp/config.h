// Every size and every switch of the method in plain structs, and the presets. Nothing else in addp/ knows a preset:
// the models take a Config. One visitor names every field, so that the program can print, store, override and load them
// all.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "nn/causal_transformer.h"
#include "nn/conv_classifier.h"
#include "nn/igpt.h"
#include "nn/vit_vqgan.h"
#include "nn/vqgan.h"

namespace addp {

// A ViT encoder and a shallower decoder of the same width.
struct TransformerConfig {
  int64_t width = 128;  // D
  int64_t depth = 4, heads = 4;
  int64_t decoder_depth = 2, decoder_heads = 4;
  double mlp_ratio = 4;
  double dropout = 0.1;  // on the embedded input of the encoder
  // Activation checkpointing of the MLPs: a block keeps 0.6 of the numbers for its backward pass and multiplies a ninth
  // more. The results are the same bits.
  bool recompute_mlp = false;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "width", width);
    f(prefix + "depth", depth);
    f(prefix + "heads", heads);
    f(prefix + "decoder_depth", decoder_depth);
    f(prefix + "decoder_heads", decoder_heads);
    f(prefix + "mlp_ratio", mlp_ratio);
    f(prefix + "dropout", dropout);
    f(prefix + "recompute_mlp", recompute_mlp);
  }
};

// How much is masked during training (Sec. 3.2; ADDP.md "Training step" 1): a truncated normal density over the
// ratios cos(pi/2 i/steps) that lie in [min_ratio, max_ratio).
struct MaskingConfig {
  double min_ratio = 0.5, max_ratio = 1.0;
  double mean = 0.55, deviation = 0.25;
  int64_t steps = 100;   // T of the diffusion process
  int64_t max_jump = 5;  // mask_t_next is up to this many ratios noisier than mask_t

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "min_ratio", min_ratio);
    f(prefix + "max_ratio", max_ratio);
    f(prefix + "mean", mean);
    f(prefix + "deviation", deviation);
    f(prefix + "steps", steps);
    f(prefix + "max_jump", max_jump);
  }
};

// The loss, and the paper's ablations as switches; the defaults are the method.
struct ObjectiveConfig {
  double label_smoothing = 0.1;
  bool predicted_targets = true;  // target: the token predictor's distribution; false: the image's hard codes
  bool reliable_tokens = true;    // the token decoder also reads the reliable tokens; false: only the encoder's output
  bool soft_unreliable = true;    // unreliable embedding: mean over the codes; false: that of the likeliest code

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "label_smoothing", label_smoothing);
    f(prefix + "predicted_targets", predicted_targets);
    f(prefix + "reliable_tokens", reliable_tokens);
    f(prefix + "soft_unreliable", soft_unreliable);
  }
};

// Generation (Sec. 3.4).
struct SamplerConfig {
  int64_t steps = 20;
  std::string schedule = "cosine";  // of the number of masked tokens: cosine or linear
  double temperature = 6.0;         // of the Gumbel noise on the confidence ("choice temperature")
  bool anneal = true;               // temperature falls linearly to 0; false: it stays
  double top_p = 1.0;               // codes are drawn from the likeliest ones that sum to this; 1: from all
  bool final_decode = true;  // decode the final codes; false: the last step's image with its one soft token (Quirk)

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "steps", steps);
    f(prefix + "schedule", schedule);
    f(prefix + "temperature", temperature);
    f(prefix + "anneal", anneal);
    f(prefix + "top_p", top_p);
    f(prefix + "final_decode", final_decode);
  }
};

// What the tokenizer is trained for (VQGAN, Esser et al. 2021): |x - rec| + perceptual distance (only where weights are
// given) + codebook loss + adaptive weight * hinge loss of a PatchGAN that starts late.
struct TokenizerConfig {
  double perceptual_weight = 1;
  double codebook_weight = 1;
  bool ema_codebook = true;  // codes follow moving averages, dead ones are revived; false: by gradient
  int64_t gan_start = 0;     // step from which the discriminator takes part; -1: never
  double gan_weight = 0.1;   // on top of the adaptive weight
  double gan_limit = 1e3;    // largest adaptive weight
  int64_t ndf = 32, discriminator_layers = 2;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "perceptual_weight", perceptual_weight);
    f(prefix + "codebook_weight", codebook_weight);
    f(prefix + "ema_codebook", ema_codebook);
    f(prefix + "gan_start", gan_start);
    f(prefix + "gan_weight", gan_weight);
    f(prefix + "gan_limit", gan_limit);
    f(prefix + "ndf", ndf);
    f(prefix + "discriminator_layers", discriminator_layers);
  }
};

// One training stage. Effective learning rate: base_lr * batch / 256; linear warm-up, then half a cosine down to
// min_lr.
struct StageConfig {
  int64_t steps = 1000, batch = 64, warmup_steps = 50;
  double base_lr = 1e-4, min_lr = 0;
  double beta1 = 0.9, beta2 = 0.95, weight_decay = 0.05;  // decay: only tensors with more than one dimension
  double clip_norm = 3.0;                                 // 0: no clipping
  double ema_decay = 0;                                   // moving average of the weights; 0: none
  bool flip = true;                                       // augmentation: mirror every other image
  double min_crop = 1;  // augmentation: random resized crop of at least this share of the area; 1: none
  double erasing = 0;   // augmentation: how often a random rectangle becomes noise

  double learning_rate() const { return base_lr * static_cast<double>(batch) / 256; }

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "steps", steps);
    f(prefix + "batch", batch);
    f(prefix + "warmup_steps", warmup_steps);
    f(prefix + "base_lr", base_lr);
    f(prefix + "min_lr", min_lr);
    f(prefix + "beta1", beta1);
    f(prefix + "beta2", beta2);
    f(prefix + "weight_decay", weight_decay);
    f(prefix + "clip_norm", clip_norm);
    f(prefix + "ema_decay", ema_decay);
    f(prefix + "flip", flip);
    f(prefix + "min_crop", min_crop);
    f(prefix + "erasing", erasing);
  }
};

// Fine-tuning as a classifier: what comes on top of train_finetune (ADDP.md's recipe is that of MAE and BEiT).
struct FinetuneConfig {
  double labels = 100;        // percent of each class's training images that are used
  double layer_decay = 0.65;  // factor on the learning rate per layer below the head; only with a pre-trained encoder
  double drop_path = 0.1;     // of the last block
  double mixup = 0.8, cutmix = 1;
  double label_smoothing = 0.1;
  bool tokenizer_norm = true;  // the norm that the encoder was pre-trained with; false: a plain ViT (Quirk)

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "labels", labels);
    f(prefix + "layer_decay", layer_decay);
    f(prefix + "drop_path", drop_path);
    f(prefix + "mixup", mixup);
    f(prefix + "cutmix", cutmix);
    f(prefix + "label_smoothing", label_smoothing);
    f(prefix + "tokenizer_norm", tokenizer_norm);
  }
};

// Segmentation and detection on the token grid: what comes on top of train_segment and train_detect.
struct DenseConfig {
  int64_t image_size = 64;     // the encoder's positions are resized to it
  int64_t head_width = 64;     // channels
  double layer_decay = 0.75;   // as for fine-tuning
  double drop_path = 0.1;      // of the last block
  bool tokenizer_norm = true;  // as for fine-tuning
  double min_score = 0.05;     // of boxes that are reported
  double max_iou = 0.6;        // of two reported boxes of one class

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    f(prefix + "image_size", image_size);
    f(prefix + "head_width", head_width);
    f(prefix + "layer_decay", layer_decay);
    f(prefix + "drop_path", drop_path);
    f(prefix + "tokenizer_norm", tokenizer_norm);
    f(prefix + "min_score", min_score);
    f(prefix + "max_iou", max_iou);
  }
};

struct Config {
  std::string preset = "demo";
  int64_t image_size = 32;  // Hi = Wi, pixels
  int64_t patch_size = 4;   // pixels a token covers in each direction; the VQGAN halves log2(patch_size) times
  VqganConfig vqgan;

  // Token ids of the transformers: codes 0..K-1, then the class token's and the mask's.
  int64_t vocabulary = 258;  // V
  int64_t class_id = 256, mask_id = 257;
  int64_t position_rows = 65;      // rows of the predictor's position table, at least 1 + L
  bool unused_parameters = false;  // also hold the tensors of official checkpoints that no forward pass reads

  TransformerConfig predictor;  // the token predictor (MAGE)
  TransformerConfig model;      // ADDP: pixel encoder and token decoder
  TokenizerConfig tokenizer;
  MaskingConfig masking;
  ObjectiveConfig objective;
  SamplerConfig sampler;
  FinetuneConfig finetune;
  DenseConfig dense;

  // The neighbours that ADDP is compared with: ViT-VQGAN's tokenizer, a causal transformer over a tokenizer's codes
  // ("gpt") or over pixels (Image GPT). Image, patch and codebook size are those above.
  VitVqganConfig vit_vqgan;
  CausalConfig causal;
  IgptConfig igpt;
  TokenChoice causal_sampler;
  ConvClassifierConfig classifier;  // the judge of generated images

  StageConfig train_vqgan, train_predictor, train_addp, train_probe, train_finetune, train_segment, train_detect,
      train_vit_vqgan, train_gpt, train_igpt, train_classifier;
  double encoder_lr_scale = 1;  // training ADDP: the pixel encoder's learning rate, as a factor on train_addp's

  int64_t grid() const { return image_size / patch_size; }  // tokens along one side
  int64_t tokens() const { return grid() * grid(); }        // L
  int64_t codes() const { return vqgan.codebook_size; }     // K

  // The neighbours' sizes, with what they share with the rest filled in.
  VitVqganConfig vit_vqgan_config() const;
  CausalConfig gpt_config() const;
  IgptConfig igpt_config() const;

  // Ids as the official code has them: V = K + 1001, class K + 76, mask V - 1 (Quirk, from an older code base).
  void use_official_ids();
  // Ids without gaps: V = K + 2, class K, mask K + 1; position_rows = 1 + L.
  void use_compact_ids();

  // f(name, field&) for every field; fields are int64_t, double, bool, std::string or std::vector<int64_t>.
  template <class F>
  void visit(F&& f) {
    f("preset", preset);
    f("image_size", image_size);
    f("patch_size", patch_size);
    vqgan.visit("vqgan.", f);
    f("vocabulary", vocabulary);
    f("class_id", class_id);
    f("mask_id", mask_id);
    f("position_rows", position_rows);
    f("unused_parameters", unused_parameters);
    predictor.visit("predictor.", f);
    model.visit("model.", f);
    tokenizer.visit("tokenizer.", f);
    masking.visit("masking.", f);
    objective.visit("objective.", f);
    sampler.visit("sampler.", f);
    finetune.visit("finetune.", f);
    dense.visit("dense.", f);
    vit_vqgan.visit("vit_vqgan.", f);
    causal.visit("causal.", f);
    igpt.visit("igpt.", f);
    causal_sampler.visit("causal_sampler.", f);
    classifier.visit("classifier.", f);
    train_vqgan.visit("train_vqgan.", f);
    train_predictor.visit("train_predictor.", f);
    train_addp.visit("train_addp.", f);
    train_probe.visit("train_probe.", f);
    train_finetune.visit("train_finetune.", f);
    train_segment.visit("train_segment.", f);
    train_detect.visit("train_detect.", f);
    train_vit_vqgan.visit("train_vit_vqgan.", f);
    train_gpt.visit("train_gpt.", f);
    train_igpt.visit("train_igpt.", f);
    train_classifier.visit("train_classifier.", f);
    f("encoder_lr_scale", encoder_lr_scale);
  }

  // Throws Error(usage) that names the field when sizes contradict each other.
  void validate() const;
};

// tiny: 16x16 images, seconds, for tests. demo: 32x32, minutes on two cores. small: between demo and base.
// base, large: the paper's (256x256, K = 1024), with the names, shapes and ids of the official checkpoints.
Config preset(const std::string& name);  // throws Error(usage) for an unknown name
std::vector<std::string> preset_names();

// All fields as (name, text), in visiting order; and one field from text. Doubles are written so that they read back
// exactly. set_field throws Error(usage) for an unknown name or for text that does not fit.
std::vector<std::pair<std::string, std::string>> list_fields(const Config& config);
void set_field(Config& config, const std::string& name, const std::string& text);

// The same as a text of lines `name = value`, where # starts a comment.
std::string to_text(const Config& config);
Config config_from_text(const std::string& text, Config start = {});

}  // namespace addp
