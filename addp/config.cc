#include "addp/config.h"

#include <algorithm>
#include <charconv>
#include <sstream>

namespace addp {

void Config::use_official_ids() {
  vocabulary = codes() + 1001;
  class_id = codes() + 76;
  mask_id = vocabulary - 1;
}

void Config::use_compact_ids() {
  vocabulary = codes() + 2;
  class_id = codes();
  mask_id = codes() + 1;
  position_rows = 1 + tokens();
}

VitVqganConfig Config::vit_vqgan_config() const {
  VitVqganConfig c = vit_vqgan;
  c.image_size = image_size, c.patch_size = patch_size, c.codebook_size = codes();
  return c;
}

CausalConfig Config::gpt_config() const {
  CausalConfig c = causal;
  c.vocabulary = codes(), c.tokens = tokens();
  return c;
}

IgptConfig Config::igpt_config() const {
  IgptConfig c = igpt;
  c.image_size = image_size;
  return c;
}

static void validate_transformer(const std::string& name, const TransformerConfig& t) {
  const auto require = [&](bool ok, const auto&... text) { check_as(ErrorKind::usage, ok, "config: ", name, text...); };
  require(t.width > 0 && t.width % 4 == 0, ".width must be a positive multiple of 4, found ", t.width);
  require(t.heads > 0 && t.width % t.heads == 0, ".heads must divide width ", t.width, ", found ", t.heads);
  require(t.decoder_heads > 0 && t.width % t.decoder_heads == 0, ".decoder_heads must divide width ", t.width,
          ", found ", t.decoder_heads);
  require(t.depth > 0 && t.decoder_depth > 0, ".depth and .decoder_depth must be positive");
  require(t.dropout >= 0 && t.dropout < 1, ".dropout must lie in [0, 1), found ", t.dropout);
}

static void validate_stage(const std::string& name, const StageConfig& stage) {
  const auto require = [&](bool ok, const auto&... text) { check_as(ErrorKind::usage, ok, "config: ", name, text...); };
  require(stage.steps >= 0, ".steps must not be negative, found ", stage.steps);
  require(stage.batch > 0, ".batch must be positive, found ", stage.batch);
  require(stage.warmup_steps >= 0, ".warmup_steps must not be negative, found ", stage.warmup_steps);
}

static void validate_neighbours(const Config& config) {
  const auto require = [&](bool ok, const auto&... text) { check_as(ErrorKind::usage, ok, "config: ", text...); };
  const VitVqganConfig& vit = config.vit_vqgan;
  require(vit.width > 0 && vit.width % 4 == 0 && vit.heads > 0 && vit.width % vit.heads == 0, "vit_vqgan.width ",
          vit.width, " must be a positive multiple of 4 and of vit_vqgan.heads ", vit.heads);
  require(vit.depth > 0 && vit.decoder_depth > 0 && vit.codebook_dim > 0,
          "vit_vqgan.depth, .decoder_depth and .codebook_dim must be positive");
  const CausalConfig& causal = config.causal;
  require(causal.width > 0 && causal.heads > 0 && causal.width % causal.heads == 0, "causal.heads ", causal.heads,
          " must divide causal.width ", causal.width);
  require(causal.depth > 0 && causal.feature_layer >= 0 && causal.feature_layer <= causal.depth,
          "causal.depth must be positive and causal.feature_layer within it, found ", causal.depth, " and ",
          causal.feature_layer);
  require(causal.dropout >= 0 && causal.dropout < 1, "causal.dropout must lie in [0, 1), found ", causal.dropout);
  require(config.igpt.size > 1 && config.image_size % config.igpt.size == 0, "igpt.size ", config.igpt.size,
          " must be at least 2 and divide image_size ", config.image_size);
  require(config.igpt.colours > 1, "igpt.colours must be at least 2, found ", config.igpt.colours);
  const TokenChoice& choice = config.causal_sampler;
  require(choice.temperature >= 0, "causal_sampler.temperature must not be negative, found ", choice.temperature);
  require(choice.top_k >= 0, "causal_sampler.top_k must not be negative, found ", choice.top_k);
  require(choice.top_p > 0 && choice.top_p <= 1, "causal_sampler.top_p must lie in (0, 1], found ", choice.top_p);
}

void Config::validate() const {
  const auto require = [&](bool ok, const auto&... text) { check_as(ErrorKind::usage, ok, "config: ", text...); };
  require(patch_size > 0 && image_size > 0 && image_size % patch_size == 0, "image_size ", image_size,
          " must be a multiple of patch_size ", patch_size);
  vqgan.validate();
  require(vqgan.image_channels == 3, "vqgan.image_channels must be 3, found ", vqgan.image_channels);
  require(vqgan.downsampling() == patch_size, "the VQGAN shrinks images by ", vqgan.downsampling(),
          " (vqgan.ch_mult), patch_size is ", patch_size, "; they must be equal");
  require(codes() > 1, "vqgan.codebook_size must be at least 2, found ", codes());
  require(vocabulary > codes() && std::max(class_id, mask_id) < vocabulary && std::min(class_id, mask_id) >= codes() &&
              class_id != mask_id,
          "class_id ", class_id, " and mask_id ", mask_id, " must be two numbers in [", codes(), ", vocabulary ",
          vocabulary, ")");
  require(position_rows >= 1 + tokens(), "position_rows must be at least 1 + ", tokens(), " tokens, found ",
          position_rows);
  validate_transformer("predictor", predictor);
  validate_transformer("model", model);
  require(masking.min_ratio > 0 && masking.min_ratio < masking.max_ratio && masking.max_ratio <= 1,
          "masking ratios must satisfy 0 < min_ratio < max_ratio <= 1");
  require(masking.deviation > 0 && masking.steps > 0 && masking.max_jump > 0,
          "masking.deviation, .steps and .max_jump must be positive");
  require(sampler.steps > 0, "sampler.steps must be positive, found ", sampler.steps);
  require(sampler.schedule == "cosine" || sampler.schedule == "linear",
          "sampler.schedule must be cosine or linear, found '", sampler.schedule, "'");
  require(sampler.top_p > 0 && sampler.top_p <= 1, "sampler.top_p must lie in (0, 1], found ", sampler.top_p);
  validate_stage("train_vqgan", train_vqgan);
  validate_stage("train_predictor", train_predictor);
  validate_stage("train_addp", train_addp);
  validate_stage("train_probe", train_probe);
  validate_stage("train_finetune", train_finetune);
  validate_stage("train_segment", train_segment);
  validate_stage("train_detect", train_detect);
  require(dense.image_size > 0 && dense.image_size % patch_size == 0, "dense.image_size ", dense.image_size,
          " must be a multiple of patch_size ", patch_size);
  require(dense.head_width > 1, "dense.head_width must be at least 2, found ", dense.head_width);
  require(dense.drop_path >= 0 && dense.drop_path < 1, "dense.drop_path must lie in [0, 1), found ", dense.drop_path);
  require(finetune.labels > 0 && finetune.labels <= 100, "finetune.labels must lie in (0, 100] percent, found ",
          finetune.labels);
  require(finetune.drop_path >= 0 && finetune.drop_path < 1, "finetune.drop_path must lie in [0, 1), found ",
          finetune.drop_path);
  require(finetune.mixup >= 0 && finetune.cutmix >= 0, "finetune.mixup and .cutmix must not be negative");
  validate_stage("train_vit_vqgan", train_vit_vqgan);
  validate_stage("train_gpt", train_gpt);
  validate_stage("train_igpt", train_igpt);
  validate_stage("train_classifier", train_classifier);
  require(classifier.width > 0 && classifier.width % 8 == 0,
          "classifier.width must be a positive multiple of 8, found ", classifier.width);
  require(classifier.stages >= 0 && classifier.stages <= 8, "classifier.stages must lie in [0, 8], found ",
          classifier.stages);
  validate_neighbours(*this);
  require(encoder_lr_scale >= 0, "encoder_lr_scale must not be negative, found ", encoder_lr_scale);
}

// ---- Presets

static StageConfig stage(int64_t steps, int64_t batch, int64_t warmup_steps, double base_lr, double ema_decay = 0) {
  StageConfig s;
  s.steps = steps, s.batch = batch, s.warmup_steps = warmup_steps, s.base_lr = base_lr, s.ema_decay = ema_decay;
  return s;
}

// Recognition: moments of MAE's and BEiT's fine-tuning. Erasing is for classifiers: it would hide objects.
static StageConfig recognition(int64_t steps, int64_t batch, int64_t warmup_steps, double base_lr, double ema_decay,
                               double erasing = 0) {
  StageConfig s = stage(steps, batch, warmup_steps, base_lr, ema_decay);
  s.beta2 = 0.999, s.erasing = erasing;
  return s;
}

// The judge of generated images. Not mirrored: whether things face left or right is part of what it is to notice.
static StageConfig judge(int64_t steps, int64_t batch, int64_t warmup_steps, double base_lr, double ema_decay) {
  StageConfig s = stage(steps, batch, warmup_steps, base_lr, ema_decay);
  s.flip = false;
  return s;
}

static VqganConfig vqgan(int64_t ch, std::vector<int64_t> ch_mult, int64_t blocks, int64_t codes, int64_t dim) {
  VqganConfig c;
  c.ch = ch, c.ch_mult = std::move(ch_mult), c.num_res_blocks = blocks, c.codebook_size = codes, c.codebook_dim = dim;
  return c;
}

static Config tiny() {
  Config c;
  c.image_size = 16, c.patch_size = 4;
  c.vqgan = vqgan(32, {1, 1, 1}, 1, 24, 8);
  c.predictor = c.model = {.width = 32, .depth = 2, .heads = 4, .decoder_depth = 1, .decoder_heads = 2};
  c.sampler.steps = 4;
  c.tokenizer.ndf = 8;
  c.train_vqgan = stage(20, 8, 2, 3e-2);
  c.train_predictor = stage(20, 8, 2, 3e-2);
  c.train_addp = stage(20, 8, 2, 3e-2);
  c.train_probe = stage(200, 32, 10, 60);
  c.train_finetune = recognition(20, 8, 2, 3e-2, 0.9, 0.25);
  c.dense.image_size = 32, c.dense.head_width = 16;
  c.train_segment = c.train_detect = recognition(20, 4, 2, 6e-2, 0.9);
  c.vit_vqgan = {.width = 32, .depth = 1, .heads = 2, .decoder_depth = 1};
  c.causal = {.width = 32, .depth = 2, .heads = 4};
  c.igpt = {.size = 8, .colours = 8};
  c.train_vit_vqgan = c.train_gpt = c.train_igpt = stage(20, 8, 2, 3e-2);
  c.classifier = {.width = 8, .stages = 1};
  c.train_classifier = judge(20, 8, 2, 3e-1, 0.9);
  c.use_compact_ids();
  return c;
}

static Config demo() {
  Config c;
  c.image_size = 32, c.patch_size = 4;
  // Few codes and no dropout: some ten thousand images are too few to learn how hundreds of codes go together.
  c.vqgan = vqgan(32, {1, 1, 2}, 1, 64, 8);
  c.predictor = c.model = {.width = 128, .depth = 4, .heads = 4, .decoder_depth = 2, .decoder_heads = 4, .dropout = 0};
  // About 3, 2 and 3 minutes on two cores: small batches, because steps count more than images here.
  c.tokenizer.gan_start = 900;
  c.train_vqgan = stage(1200, 32, 50, 16e-3, 0.995);
  c.train_predictor = stage(1500, 32, 50, 24e-3, 0.995);
  c.train_addp = stage(1000, 32, 50, 24e-3, 0.99);
  c.encoder_lr_scale = 0.15;  // the decoder's rate in the encoder costs 4 points of the linear probe
  c.train_probe = stage(2000, 256, 30, 10);
  // So few steps cannot afford the paper's mixing and erasing: 66 % with, 71 % without after 400 of them.
  c.finetune.layer_decay = 0.85, c.finetune.mixup = c.finetune.cutmix = 0.2;
  c.train_finetune = recognition(1000, 32, 100, 24e-3, 0.99, 0.1);
  c.train_segment = c.train_detect = recognition(1000, 8, 50, 48e-3, 0.99);
  c.vit_vqgan = {.width = 128, .depth = 3, .heads = 4, .decoder_depth = 3};
  c.causal = {.width = 128, .depth = 6, .heads = 4};
  c.train_vit_vqgan = c.train_vqgan;
  c.train_vit_vqgan.base_lr = 16e-3;  // half and double this rate reconstruct worse
  c.train_gpt = c.train_predictor;
  // Its sequences are four times as long: small batches, for the same reason.
  c.train_igpt = stage(6000, 8, 200, 96e-3, 0.999);
  c.train_classifier = judge(1500, 64, 50, 24e-3, 0.99);
  // A model of so few steps gives its unlikely codes too much weight and needs confidence to count for more:
  // Frechet distance 3.0 with these, 3.6 with 20 steps, temperature 6 and top_p 0.85 (1,000 images, `addp evaluate`).
  c.sampler.steps = 40, c.sampler.temperature = 2, c.sampler.top_p = 0.9;
  c.use_compact_ids();
  return c;
}

static Config small() {
  Config c;
  c.image_size = 64, c.patch_size = 4;
  c.vqgan = vqgan(64, {1, 2, 4}, 2, 512, 64);
  c.predictor = c.model = {.width = 384, .depth = 8, .heads = 6, .decoder_depth = 4, .decoder_heads = 6};
  c.train_vqgan = stage(50000, 64, 1000, 1e-3, 0.999);
  c.train_predictor = stage(50000, 128, 1000, 1e-3, 0.9999);
  c.train_addp = stage(100000, 128, 2000, 5e-4, 0.9999);
  c.train_probe = stage(10000, 512, 500, 1);
  c.train_finetune = recognition(20000, 128, 1000, 1e-3, 0.9999, 0.25);
  c.dense.image_size = 128, c.dense.head_width = 128;
  c.train_segment = c.train_detect = recognition(20000, 32, 1000, 2e-3, 0.9999);
  c.vit_vqgan = {.width = 384, .depth = 6, .heads = 6, .decoder_depth = 6, .codebook_dim = 16};
  c.causal = {.width = 384, .depth = 12, .heads = 6};
  c.igpt = {.size = 32, .colours = 512};
  c.train_vit_vqgan = c.train_vqgan;
  c.train_gpt = c.train_igpt = c.train_predictor;
  c.classifier.stages = 3;
  c.train_classifier = judge(20000, 128, 500, 12e-3, 0.999);
  c.use_compact_ids();
  return c;
}

// The paper's models, and a recipe of the scale they were trained at (ImageNet, batch 4096 on many accelerators).
static Config paper(const TransformerConfig& size) {
  Config c;
  c.image_size = 256, c.patch_size = 16;
  c.vqgan = vqgan(128, {1, 1, 2, 2, 4}, 2, 1024, 256);
  c.predictor = c.model = size;
  c.predictor.recompute_mlp = c.model.recompute_mlp = true;
  c.use_official_ids();
  c.position_rows = 257;
  c.unused_parameters = true;
  c.train_vqgan = stage(300000, 256, 5000, 1e-4, 0.999);
  c.train_predictor = stage(500000, 4096, 12500, 1.5e-4);
  c.train_addp = stage(250000, 4096, 12500, 1e-4);
  c.train_probe = stage(28000, 4096, 3125, 0.1);
  c.train_finetune = recognition(125000, 1024, 6250, 5e-4, 0.9999, 0.25);
  c.dense.image_size = 512, c.dense.head_width = 256;
  c.train_segment = c.train_detect = recognition(160000, 16, 1500, 1.6e-3, 0.9999);
  // ViT-VQGAN Small and the smallest Image GPT, at the scale of their papers.
  c.vit_vqgan = {.width = 512, .depth = 8, .heads = 8, .decoder_depth = 8, .codebook_dim = 32};
  c.causal = {.width = size.width, .depth = 24, .heads = size.heads};
  c.igpt = {.size = 32, .colours = 512};
  c.train_vit_vqgan = c.train_vqgan;
  c.train_gpt = c.train_igpt = c.train_predictor;
  c.classifier.stages = 5;
  c.train_classifier = judge(100000, 256, 2500, 4e-3, 0.9999);
  return c;
}

std::vector<std::string> preset_names() { return {"tiny", "demo", "small", "base", "large"}; }

Config preset(const std::string& name) {
  Config c;
  if (name == "tiny") c = tiny();
  else if (name == "demo") c = demo();
  else if (name == "small") c = small();
  else if (name == "base") c = paper({.width = 768, .depth = 12, .heads = 12, .decoder_depth = 8, .decoder_heads = 16});
  else if (name == "large")
    c = paper({.width = 1024, .depth = 24, .heads = 16, .decoder_depth = 8, .decoder_heads = 16});
  else fail(ErrorKind::usage, "unknown preset '", name, "': expected tiny, demo, small, base or large");
  c.preset = name;
  return c;
}

// ---- Fields as text

static std::string field_text(int64_t v) { return std::to_string(v); }
static std::string field_text(bool v) { return v ? "true" : "false"; }
static std::string field_text(const std::string& v) { return v; }
static std::string field_text(double v) {
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, v).ptr};  // the shortest text that reads back exactly
}
static std::string field_text(const std::vector<int64_t>& v) {
  std::string text;
  for (int64_t x : v) {
    if (!text.empty()) text += ',';
    text += std::to_string(x);
  }
  return text;
}

template <class Number>
static bool parse_number(const std::string& text, Number& v) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  return error == std::errc() && end == text.data() + text.size();
}
static bool parse_field(const std::string& text, int64_t& v) { return parse_number(text, v); }
static bool parse_field(const std::string& text, double& v) { return parse_number(text, v); }
static bool parse_field(const std::string& text, bool& v) {
  v = text == "true" || text == "1";
  return v || text == "false" || text == "0";
}
static bool parse_field(const std::string& text, std::string& v) {
  v = text;
  return true;
}
static bool parse_field(const std::string& text, std::vector<int64_t>& v) {
  v.clear();
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    v.push_back(0);
    if (!parse_number(part, v.back())) return false;
  }
  return true;
}

static const char* type_text(int64_t) { return "a whole number"; }
static const char* type_text(double) { return "a number"; }
static const char* type_text(bool) { return "true or false"; }
static const char* type_text(const std::string&) { return "text"; }
static const char* type_text(const std::vector<int64_t>&) { return "whole numbers with commas"; }

std::vector<std::pair<std::string, std::string>> list_fields(const Config& config) {
  std::vector<std::pair<std::string, std::string>> list;
  Config copy = config;
  copy.visit([&](const std::string& name, auto& value) { list.emplace_back(name, field_text(value)); });
  return list;
}

void set_field(Config& config, const std::string& name, const std::string& text) {
  bool found = false;
  config.visit([&](const std::string& field, auto& value) {
    if (field != name) return;
    found = true;
    auto parsed = value;
    check_as(ErrorKind::usage, parse_field(text, parsed), "config: ", name, " must be ", type_text(value), ", found '",
             text, "'");
    value = parsed;
  });
  check_as(ErrorKind::usage, found, "config: unknown field '", name, "'");
}

std::string to_text(const Config& config) {
  std::string text;
  for (const auto& [name, value] : list_fields(config)) text += name + " = " + value + "\n";
  return text;
}

static std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

Config config_from_text(const std::string& text, Config start) {
  std::istringstream in(text);
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    line = trimmed(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const size_t equals = line.find('=');
    check_as(ErrorKind::usage, equals != std::string::npos, "config line ", number,
             ": expected 'name = value', found '", line, "'");
    set_field(start, trimmed(line.substr(0, equals)), trimmed(line.substr(equals + 1)));
  }
  return start;
}

}  // namespace addp
