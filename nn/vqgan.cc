// Construction of both layouts and their forward passes.
#include "nn/vqgan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/codes.h"

namespace addp {

constexpr double kGroupNormEps = 1e-6;

void VqganConfig::use_taming_layout() {
  shortcut_on_branch = false;
  conv_bias = strided_downsampling = extra_decoder_block = quant_conv = mid_attention = true;
  latent_kernel = 3;
  attention_sides = {16};
  pixel_low = -1;
  pixel_high = 1;
}

void VqganConfig::validate() const {
  const auto require = [](bool ok, const auto&... text) { check_as(ErrorKind::usage, ok, "vqgan: ", text...); };
  require(!ch_mult.empty() && ch_mult.size() < 16, "ch_mult must have 1 to 15 levels, found ", ch_mult.size());
  require(norm_groups > 0, "norm_groups must be positive, found ", norm_groups);
  for (int64_t m : ch_mult) {
    require(m > 0 && ch > 0 && ch * m % norm_groups == 0, "ch ", ch, " times ch_mult ", m,
            " must be a multiple of norm_groups ", norm_groups);
  }
  require(image_channels > 0 && num_res_blocks > 0, "image_channels and num_res_blocks must be positive");
  require(codebook_size > 0 && codebook_dim > 0, "codebook_size and codebook_dim must be positive");
  require(quant_conv || latent_channels() == codebook_dim, "z_channels ", z_channels, " differs from codebook_dim ",
          codebook_dim, ", which needs quant_conv");
  require(pixel_low < pixel_high, "pixel_low must be below pixel_high");
}

// ---- Blocks

ResnetBlock::ResnetBlock(const VqganConfig& config, int64_t in, int64_t out, Options options)
    : shortcut_on_branch(config.shortcut_on_branch),
      norm1(config.norm_groups, in, kGroupNormEps, options),
      conv1(in, out, 3, config.conv_bias, options),
      norm2(config.norm_groups, out, kGroupNormEps, options),
      conv2(out, out, 3, config.conv_bias, options) {
  if (in != out) nin_shortcut.emplace(shortcut_on_branch ? out : in, out, 1, config.conv_bias, options);
}

Var ResnetBlock::operator()(const Var& x) const {
  Var h = norm1.then_silu(x);  // step by step: without recording, each result is freed once the next is there
  h = conv1(h);
  h = norm2.then_silu(h);
  h = conv2(h);
  if (!nin_shortcut) return x + h;
  return (*nin_shortcut)(shortcut_on_branch ? h : x) + h;
}

SpatialAttention::SpatialAttention(const VqganConfig& config, int64_t channels, Options options)
    : norm(config.norm_groups, channels, kGroupNormEps, options),
      q(channels, channels, 1, true, options),
      k(channels, channels, 1, true, options),
      v(channels, channels, 1, true, options),
      proj_out(channels, channels, 1, true, options) {}

Var SpatialAttention::operator()(const Var& x) const {
  const int64_t B = x.dim(0), C = x.dim(1), L = x.dim(2) * x.dim(3);
  const Var tokens = permute(reshape(norm(x), {B, C, L}), {0, 2, 1});
  const auto project = [&](const Conv2d& conv, const Var& y) {
    return linear(y, reshape(conv.weight, {C, C}), conv.bias);
  };
  const Var mixed = attention(concat({project(q, tokens), project(k, tokens), project(v, tokens)}, 2), 1);
  return x + reshape(permute(project(proj_out, mixed), {0, 2, 1}), x.shape());
}

Var VqganLevel::run_blocks(Var h) const {
  for (size_t i = 0; i < block.size(); ++i) {
    h = block[i](h);
    if (!attn.empty()) h = attn[i](h);
  }
  return h;
}

VqganMiddle::VqganMiddle(const VqganConfig& config, int64_t channels, Options options)
    : block_1(config, channels, channels, options), block_2(config, channels, channels, options) {
  if (config.mid_attention) attn_1.emplace(config, channels, options);
}

Var VqganMiddle::operator()(const Var& x) const {
  const Var h = block_1(x);
  return block_2(attn_1 ? (*attn_1)(h) : h);
}

// ---- Encoder and decoder

static int64_t channels_of_level(const VqganConfig& config, size_t level) { return config.ch * config.ch_mult[level]; }
static int64_t lowest_channels(const VqganConfig& config) { return config.ch * config.ch_mult.back(); }

// `blocks` residual blocks from `in` to the level's channels.
static VqganLevel make_level(const VqganConfig& config, size_t level, int64_t in, int64_t blocks, Options options) {
  VqganLevel made;
  const int64_t out = channels_of_level(config, level);
  const auto& sides = config.attention_sides;
  const bool with_attention = std::count(sides.begin(), sides.end(), config.resolution >> level) > 0;
  for (int64_t i = 0; i < blocks; ++i) {
    made.block.emplace_back(config, i == 0 ? in : out, out, options);
    if (with_attention) made.attn.emplace_back(config, out, options);
  }
  return made;
}

VqganEncoder::VqganEncoder(const VqganConfig& config, Options options)
    : conv_in(config.image_channels, config.ch, 3, config.conv_bias, options),
      mid(config, lowest_channels(config), options),
      norm_out(config.norm_groups, lowest_channels(config), kGroupNormEps, options),
      conv_out(lowest_channels(config), config.latent_channels(), config.latent_kernel, true, options) {
  int64_t in = config.ch;
  for (size_t i = 0; i < config.ch_mult.size(); ++i) {
    down.push_back(make_level(config, i, in, config.num_res_blocks, options));
    in = channels_of_level(config, i);
    if (config.strided_downsampling && i + 1 < config.ch_mult.size()) {
      const Padding below_and_right{.top = 0, .left = 0, .bottom = 1, .right = 1};
      down.back().resample.emplace(in, in, 3, 2, below_and_right, true, options);
    }
  }
}

Var VqganEncoder::operator()(const Var& image) const {
  Var h = conv_in(image);
  for (size_t i = 0; i < down.size(); ++i) {
    h = down[i].run_blocks(std::move(h));
    if (i + 1 < down.size()) h = down[i].resample ? (*down[i].resample)(h) : avg_pool(h, 2);
  }
  return conv_out(norm_out.then_silu(mid(h)));
}

VqganDecoder::VqganDecoder(const VqganConfig& config, Options options)
    : conv_in(config.latent_channels(), lowest_channels(config), 3, true, options),
      mid(config, lowest_channels(config), options),
      norm_out(config.norm_groups, channels_of_level(config, 0), kGroupNormEps, options),
      conv_out(channels_of_level(config, 0), config.image_channels, 3, true, options) {
  int64_t in = lowest_channels(config);
  for (size_t i = config.ch_mult.size(); i-- > 0;) {
    VqganLevel level = make_level(config, i, in, config.num_res_blocks + config.extra_decoder_block, options);
    in = channels_of_level(config, i);
    level.resample_name = "upsample.conv.";
    if (i > 0) level.resample.emplace(in, in, 3, true, options);
    up.insert(up.begin(), std::move(level));
  }
}

Var VqganDecoder::operator()(const Var& latent) const {
  Var h = mid(conv_in(latent));
  for (size_t i = up.size(); i-- > 0;) {
    h = up[i].run_blocks(std::move(h));
    if (up[i].resample) h = (*up[i].resample)(upsample(h, 2));
  }
  return conv_out(norm_out.then_silu(h));
}

// ---- Quantizer

VectorQuantizer::VectorQuantizer(const VqganConfig& config, Options options)
    : beta(config.beta),
      legacy_beta(config.legacy_beta),
      embedding(config.codebook_size, config.codebook_dim, options) {}

// [B, D, h, w] -> [B, h w, D]
static Var to_tokens(const Var& map) {
  return permute(reshape(map, {map.dim(0), map.dim(1), map.dim(2) * map.dim(3)}), {0, 2, 1});
}

// [B, h w, D] -> [B, D, h, w]
static Var to_map(const Var& tokens, int64_t h, int64_t w) {
  return reshape(permute(tokens, {0, 2, 1}), {tokens.dim(0), tokens.dim(2), h, w});
}

Tensor VectorQuantizer::codes(const Var& z) const {
  check(z.rank() == 4 && z.dim(1) == embedding.weight.dim(1), "quantizer: z must be [B, ", embedding.weight.dim(1),
        ", h, w], found ", z.shape());
  const NoGrad no_grad;
  const Var table = unit_codes ? unit_norm(embedding.weight, 1, kUnitEps) : embedding.weight;
  return nearest_codes(to_tokens(z).value(), table.value());
}

Var VectorQuantizer::embed(const Tensor& codes) const {
  return unit_codes ? unit_norm(embedding(codes), -1, kUnitEps) : embedding(codes);
}

Quantized VectorQuantizer::operator()(const Var& z) const {
  Quantized result;
  result.codes = codes(z);
  const Var e = to_map(embed(result.codes), z.dim(2), z.dim(3));
  const Var commitment = mean(square(detach(e) - z));  // moves the encoder's output to its codes
  const Var codebook = mean(square(e - detach(z)));    // moves the codes
  result.codebook_loss = legacy_beta ? commitment + beta * codebook : codebook + beta * commitment;
  result.z_q = straight_through(z, e.value());
  return result;
}

// ---- The whole

static const VqganConfig& validated(const VqganConfig& config) {
  config.validate();
  return config;
}

Vqgan::Vqgan(const VqganConfig& given, Options options)
    : config(validated(given)), encoder(config, options), decoder(config, options), quantizer(config, options) {
  if (!config.quant_conv) return;
  quant_conv.emplace(config.latent_channels(), config.codebook_dim, 1, true, options);
  post_quant_conv.emplace(config.codebook_dim, config.latent_channels(), 1, true, options);
}

Var Vqgan::encode(const Var& image) const {
  const int64_t side = config.downsampling();
  check(image.rank() == 4 && image.dim(1) == config.image_channels && image.dim(2) % side == 0 &&
            image.dim(3) % side == 0,
        "vqgan: image must be [B, ", config.image_channels, ", Hi, Wi] with sides that are multiples of ", side,
        ", found ", image.shape());
  const double range = config.pixel_high - config.pixel_low;
  const bool as_given = config.pixel_low == 0 && range == 1;
  const Var h = encoder(as_given ? image : affine(image, range, config.pixel_low));
  return quant_conv ? (*quant_conv)(h) : h;
}

Var Vqgan::decode(const Var& z_q) const {
  const Var image = decoder(post_quant_conv ? (*post_quant_conv)(z_q) : z_q);
  const double range = config.pixel_high - config.pixel_low;
  const bool as_given = config.pixel_low == 0 && range == 1;
  return as_given ? image : affine(image, 1 / range, -config.pixel_low / range);
}

Tensor Vqgan::encode_codes(const Var& image) const {
  const NoGrad no_grad;
  return quantizer.codes(encode(image));
}

Var Vqgan::decode_tokens(const Var& tokens, int64_t rows) const {
  const int64_t L = tokens.dim(1);
  if (rows == 0) rows = std::llround(std::sqrt(static_cast<double>(L)));
  check(rows > 0 && L % rows == 0, "vqgan: ", L, " tokens do not fill a grid of ", rows, " rows");
  return decode(to_map(tokens, rows, L / rows));
}

}  // namespace addp
