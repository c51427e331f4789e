// Modules: names and shapes against the reference data, gradients, and the behaviour that losses hide
// (straight-through, dead codes, running statistics). Their values against PyTorch are the parity tests' matter.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "nn/codebook_ema.h"
#include "nn/init.h"
#include "nn/lpips.h"
#include "nn/vqgan.h"
#include "tensor/allocator.h"
#include "tensor/safetensors.h"
#include "tests/compare.h"
#include "tests/scratch.h"

using namespace addp;

namespace {

// Every parameter different, norms near 1 and 0, so that no gradient vanishes by symmetry.
template <class Module>
void randomize(Module& module, double scale = 0.3) {
  const Rng rng(7);
  for (const NamedVar& p : parameters(module)) {
    const bool is_norm = p.var.rank() == 1 && p.name.find("weight") != std::string::npos;
    const double middle = is_norm ? 1 : 0;
    init_uniform(p.var, middle - scale, middle + scale, rng.fork(p.name));
  }
}

// Central differences over every parameter of a module (at most `samples` entries each), in float64.
template <class Module>
void check_gradients(Module& module, const std::function<Var()>& f, int64_t samples = 6, double step = 1e-3) {
  const GradcheckResult r = gradcheck(f, parameters(module), samples, step);
  CAPTURE(r.name);
  CAPTURE(r.index);
  CAPTURE(r.analytic);
  CAPTURE(r.numeric);
  CHECK(r.checked > 0);
  CHECK(r.worst_error < 1e-6);
}

Var random_var(Shape shape, uint64_t seed, bool needs_grad = false) {
  Rng rng(seed);
  return Var(rng.uniform(std::move(shape), kDouble), needs_grad);
}

// A scalar that depends on every entry of x differently.
Var projected(const Var& x) { return mean(x * random_var(x.shape(), 99)); }

template <class Module>
void check_names(Module& module, const std::string& file) {
  std::map<std::string, Shape> expected, found;
  for (const TensorInfo& info : read_safetensors_header("tests/golden/" + file).tensors)
    expected[info.name] = info.shape;
  for (const NamedVar& p : parameters(module)) found[p.name] = p.var.shape();
  CHECK(found.size() == expected.size());
  for (const auto& [name, shape] : expected) {
    CAPTURE(name);
    REQUIRE(found.count(name) == 1);
    CHECK(found[name] == shape);
  }
}

VqganConfig small_vqgan() {
  VqganConfig config;
  config.ch = 4, config.ch_mult = {1, 2}, config.norm_groups = 2, config.codebook_size = 5, config.codebook_dim = 3;
  return config;
}

}  // namespace

TEST_CASE("names and shapes are those of the reference checkpoints") {
  VisionTransformer vit({.image_size = 32, .patch_size = 4, .width = 32, .depth = 2, .heads = 4, .classes = 10}, {});
  check_names(vit, "vit_weights.safetensors");
  VqganConfig config;
  config.codebook_size = 1024;
  Vqgan vqgan(config, {});
  check_names(vqgan, "vqgan_weights.safetensors");
  Discriminator discriminator({.ndf = 8, .n_layers = 2}, {});
  check_names(discriminator, "discriminator_weights.safetensors");
}

TEST_CASE("vqgan: taming's layout has taming's names") {
  VqganConfig config = small_vqgan();
  config.use_taming_layout();
  config.attention_sides = {4}, config.resolution = 8, config.z_channels = 6;
  Vqgan model(config, {});
  const StateDict state = state_dict(model);
  const std::map<std::string, Shape> expected = {
      {"encoder.conv_in.bias", {4}},
      {"encoder.down.0.downsample.conv.weight", {4, 4, 3, 3}},
      {"encoder.down.1.block.0.nin_shortcut.weight", {8, 4, 1, 1}},
      {"encoder.down.1.attn.0.proj_out.weight", {8, 8, 1, 1}},
      {"encoder.mid.attn_1.norm.weight", {8}},
      {"encoder.conv_out.weight", {6, 8, 3, 3}},
      {"decoder.up.0.block.1.conv1.weight", {4, 4, 3, 3}},
      {"decoder.up.0.block.0.nin_shortcut.bias", {4}},
      {"decoder.up.1.attn.1.q.weight", {8, 8, 1, 1}},
      {"decoder.up.1.upsample.conv.weight", {8, 8, 3, 3}},
      {"quant_conv.weight", {3, 6, 1, 1}},
      {"post_quant_conv.weight", {6, 3, 1, 1}},
      {"quantize.embedding.weight", {5, 3}},
  };
  for (const auto& [name, shape] : expected) {
    CAPTURE(name);
    REQUIRE(state.count(name) == 1);
    CHECK(state.at(name).shape() == shape);
  }
  CHECK(state.count("encoder.down.0.attn.0.q.weight") == 0);
  CHECK(state.count("encoder.down.1.downsample.conv.weight") == 0);
  const Var h = model.encode(Var(full({2, 3, 8, 12}, 0.5)));
  CHECK(h.shape() == Shape{2, 3, 4, 6});
  CHECK(model.decode(h).shape() == Shape{2, 3, 8, 12});
}

TEST_CASE("vqgan: sizes, ranges and refusals") {
  Vqgan model(small_vqgan(), kDouble);
  randomize(model);
  const Var image = random_var({2, 3, 4, 6}, 1);
  const Var h = model.encode(image);
  CHECK(h.shape() == Shape{2, 3, 2, 3});
  const Quantized q = model.quantize(h);
  CHECK(q.codes.shape() == Shape{2, 6});
  CHECK(q.z_q.shape() == h.shape());
  // The same picture from the embeddings of the codes in raster order.
  const Var direct = model.decode(q.z_q), by_codes = model.decode_tokens(model.embed_codes(q.codes), 2);
  CHECK(same_bits(direct.value(), by_codes.value()));
  CHECK(same_bits(model.encode_codes(image), q.codes));

  VqganConfig symmetric = small_vqgan();
  symmetric.pixel_low = -1;
  Vqgan other(symmetric, kDouble);
  randomize(other);
  const Var shifted = affine(image, 0.5, 0.5);  // what `other` maps back to `image`
  CHECK(std::abs((sum(other.encode(shifted) - h)).item()) < 1e-12);
  CHECK(std::abs(sum(affine(other.decode(h), 2, -1) - model.decode(h)).item()) < 1e-10);

  CHECK_THROWS_AS(model.encode(random_var({1, 3, 5, 4}, 1)), Error);
  CHECK_THROWS_AS(model.encode(random_var({1, 1, 4, 4}, 1)), Error);
  VqganConfig wrong = small_vqgan();
  wrong.norm_groups = 3;
  CHECK(message_of(ErrorKind::usage, [&] { Vqgan(wrong, {}); }).find("norm_groups") != std::string::npos);
}

TEST_CASE("vision transformer: shapes and gradients") {
  VisionTransformer model({.image_size = 6, .patch_size = 2, .width = 8, .depth = 2, .heads = 2, .classes = 3},
                          kDouble);
  randomize(model);
  const Var image = random_var({2, 3, 6, 6}, 3);
  CHECK(model.features(image).shape() == Shape{2, 10, 8});
  CHECK(model(image).shape() == Shape{2, 3});
  check_gradients(model, [&] { return projected(model(image)); });
  CHECK_THROWS_AS(model(random_var({2, 3, 6, 5}, 3)), Error);
}

TEST_CASE("patch embedding is a convolution with stride p") {
  PatchEmbed embed(3, 5, 2, kDouble);
  randomize(embed);
  const Var image = random_var({2, 3, 4, 6}, 4);
  const Var map = embed.proj(image);  // [2, 5, 2, 3]
  const Var tokens = permute(reshape(map, {2, 5, 6}), {0, 2, 1});
  for (double d : to_vector<double>((embed(image) - tokens).value())) CHECK(std::abs(d) < 1e-12);
}

TEST_CASE("vqgan: gradients of both layouts") {
  for (bool taming : {false, true}) {
    CAPTURE(taming);
    VqganConfig config = small_vqgan();
    if (taming) config.use_taming_layout();
    config.attention_sides = {2}, config.resolution = 4;
    Vqgan model(config, kDouble);
    randomize(model);
    const Var image = random_var({1, 3, 4, 4}, 5);
    // Without the quantizer: its codes jump. The codebook takes part through its loss at fixed codes.
    check_gradients(
        model, [&] { return projected(model.decode(model.encode(image))); }, 3);
  }
}

TEST_CASE("quantizer: straight-through gradient and both forms of the loss") {
  for (bool legacy : {false, true}) {
    VqganConfig config = small_vqgan();
    config.legacy_beta = legacy;
    VectorQuantizer quantizer(config, kDouble);
    randomize(quantizer);
    const Var z = random_var({2, 3, 2, 2}, 6, true);
    const Quantized q = quantizer(z);
    const Tensor weight = random_var(z.shape(), 8).value();
    // z_q has the codes' values, and its gradient arrives at z unchanged.
    const Var rows = quantizer.embedding(q.codes);
    CHECK(to_vector<double>(q.z_q.value())[0] == to_vector<double>(rows.value())[0]);
    CHECK(same_bits(gradient(sum(q.z_q * Var(weight)), z), weight));
    CHECK(all_finite(gradient(sum(q.z_q), quantizer.embedding.weight)));
    CHECK(sum(abs(Var(gradient(sum(q.z_q), quantizer.embedding.weight)))).item() == 0);

    const double distance = mean(square(q.z_q - z)).item();
    CHECK(q.codebook_loss.item() == doctest::Approx(1.25 * distance).epsilon(1e-12));
    // The encoder's share: 2 (z - e) / n, times beta unless that is on the codebook term.
    const Var expected = (legacy ? 1 : 0.25) * (2.0 / static_cast<double>(z.numel()) * (z - Var(q.z_q.value())));
    const Var found = Var(gradient(q.codebook_loss, z));
    CHECK(sum(abs(found - expected)).item() < 1e-12);
  }
}

TEST_CASE("codebook averages: data start, following, revival, usage") {
  VqganConfig config = small_vqgan();
  config.codebook_size = 4, config.codebook_dim = 2;
  VectorQuantizer quantizer(config, kDouble);
  CodebookEma ema(quantizer, {.decay = 0.9});
  CHECK(!quantizer.embedding.weight.needs_grad());

  // Four clusters, far apart; k-means must find them. z: [1, 2, 4, 8], cluster by column.
  std::vector<double> values(64);
  for (size_t i = 0; i < 32; ++i) {
    values[i] = (i % 2 == 0 ? 10 : -10) + 0.01 * static_cast<double>(i % 5);
    values[32 + i] = (i % 4 < 2 ? 10 : -10) + 0.01 * static_cast<double>(i % 3);
  }
  const Tensor z = from_vector(values, {1, 2, 4, 8});
  Rng rng(3);
  ema.start(z, rng);
  const Quantized q = quantizer(Var(z));
  CodebookUsage usage(4);
  CHECK(usage.perplexity() == 0);
  usage.add(q.codes);
  CHECK(usage.used_share() == 1);
  CHECK(usage.perplexity() == doctest::Approx(4));
  CHECK(q.codebook_loss.item() < 0.01);

  // The averages follow the batch: codebook = (d * old sum + (1 - d) * sum) / (d * old count + (1 - d) * count).
  const Tensor moved = affine(Var(z), 1, 1).value();
  const std::vector<double> before = to_vector<double>(quantizer.embedding.weight.value());
  CHECK(ema.update(moved, quantizer.codes(Var(moved)), rng) == 0);
  const std::vector<double> after = to_vector<double>(quantizer.embedding.weight.value());
  for (size_t i = 0; i < after.size(); ++i) CHECK(after[i] - before[i] == doctest::Approx(0.1).epsilon(1e-6));

  // One cluster only from now on: the other three codes fade, and come back as vectors of the batch.
  const Tensor one = full({1, 2, 4, 8}, 10, kDouble);
  int64_t revived = 0;
  for (int step = 0; step < 40 && revived == 0; ++step) revived = ema.update(one, quantizer.codes(Var(one)), rng);
  CHECK(revived == 3);
  for (double v : to_vector<double>(quantizer.embedding.weight.value())) CHECK(v == doctest::Approx(10).epsilon(0.1));
  for (double n : to_vector<double>(ema.cluster_size.value())) CHECK(n >= 8 - 1e-9);  // an average code's count
}

TEST_CASE("layers: modes and running statistics") {
  const Var x = random_var({4, 3, 2, 2}, 9);
  CHECK(same_bits(dropout(x, 0.5, Mode{}).value(), x.value()));
  CHECK(same_bits(drop_path(x, 0, Mode{.train = true}).value(), x.value()));
  CHECK(message_of(ErrorKind::runtime, [&] { dropout(x, 0.5, Mode{.train = true}); }).find("rng") != std::string::npos);
  Rng rng(1);
  CHECK(!same_bits(dropout(x, 0.5, Mode{true, &rng}).value(), x.value()));

  BatchNorm norm(3, 1e-5, 0.1, true, kDouble);
  const Tensor untouched = clone(norm.running_mean.value());
  norm(x, false);
  CHECK(same_bits(norm.running_mean.value(), untouched));
  norm(x, true);
  const Var batch_mean = mean_axis(reshape(permute(x, {1, 0, 2, 3}), {3, 16}), 1);
  CHECK(sum(abs(Var(norm.running_mean.value()) - 0.1 * batch_mean)).item() < 1e-12);
  CHECK_THROWS_AS(GroupNorm(3, 4, 1e-6, {}), Error);
  CHECK_THROWS_AS(Attention(8, 3, {}), Error);
}

TEST_CASE("transformer: a block computes the rows that are asked for, and learns from them alone") {
  Block block(8, 2, 4, 0, kDouble);
  randomize(block);
  const Tensor rows = from_vector(std::vector<int64_t>{0, 4, 2, 3, 1, 0}, {2, 3});
  const auto learn = [&](bool all) {
    const Var x = random_var({2, 5, 8}, 21, true), wanted = random_var({2, 3, 8}, 22);
    const Var y = all ? gather_tokens(block(x), rows) : block(x, {}, rows);
    backward(sum(y * wanted));
    std::vector<Tensor> results{y.value(), x.grad()};
    for (NamedVar& p : parameters(block)) {
      results.push_back(p.var.grad());
      p.var.clear_grad();
    }
    return results;
  };
  const std::vector<Tensor> some = learn(false), all = learn(true);
  CHECK(some[0].shape() == Shape{2, 3, 8});
  for (size_t i = 0; i < all.size(); ++i) CHECK(largest_difference(some[i], all[i]) < 1e-12);
}

TEST_CASE("transformer: blocks that recompute their MLP learn the same bits and keep less") {
  std::vector<Block> blocks;
  for (int i = 0; i < 3; ++i) {
    blocks.emplace_back(32, 2, 4, 0.4, Options{});
    randomize(blocks.back());
  }
  const Tensor rows = from_vector(std::vector<int64_t>{0, 4, 2, 3, 1, 0}, {2, 3});
  const int64_t before = memory_statistics().in_use_bytes;
  int64_t held[2], peak[2];
  const auto learn = [&](bool recompute) {
    Rng rng(11);
    Var x(Rng(21).normal({2, 5, 32}), true), y = x;
    for (Block& block : blocks) {
      block.mlp.recompute = recompute;
      y = block(y, {true, &rng}, &block == &blocks.back() ? rows : Tensor());
    }
    held[recompute] = memory_statistics().in_use_bytes - before;
    reset_peak_memory();
    backward(sum(square(y)));
    peak[recompute] = memory_statistics().peak_bytes - before;
    std::vector<std::vector<float>> results{to_vector<float>(y.value()), to_vector<float>(x.grad())};
    for (Block& block : blocks) {
      for (NamedVar& p : parameters(block)) {
        results.push_back(to_vector<float>(p.var.grad()));
        p.var.clear_grad();
      }
    }
    return results;
  };
  CHECK(learn(true) == learn(false));
  CHECK(held[false] - held[true] == (2 * 10 + 6) * 4 * 32 * 4);  // two blocks with all rows, one with some
  CHECK(peak[true] <= peak[false]);
}

TEST_CASE("discriminator and its losses") {
  Discriminator model({.ndf = 2, .n_layers = 2}, kDouble);
  randomize(model);
  const Var real = random_var({2, 3, 16, 16}, 10), fake = random_var({2, 3, 16, 16}, 11);
  CHECK(model(real, {}).shape() == Shape{2, 1, 2, 2});
  // A short step, for the kinks of LeakyReLU and of the loss.
  const auto loss = [&] {
    const Mode train{.train = true};
    return hinge_discriminator_loss(model(real, train), model(fake, train));
  };
  check_gradients(model, loss, 6, 1e-6);
  const Var logits = Var(from_vector<double>({-2, 0.5, 3, 0}, {4}));
  CHECK(hinge_discriminator_loss(logits, logits).item() == doctest::Approx(0.5 * ((3 + 0.5 + 1) + (1.5 + 4 + 1)) / 4));
  CHECK(hinge_generator_loss(logits).item() == doctest::Approx(-0.375));
}

TEST_CASE("adaptive weight of the adversarial loss") {
  const Var last = random_var({3}, 12, true);
  const Var h = square(last);
  const Var nll = sum(h), generator_loss = 0.5 * sum(last);
  // |2 last| / (|0.5 ...| + 1e-4)
  const double expected = 0.8 * 2 * std::sqrt(sum(square(last)).item()) / (0.5 * std::sqrt(3.0) + 1e-4);
  CHECK(adaptive_gan_weight(nll, generator_loss, last) == doctest::Approx(expected).epsilon(1e-12));
  CHECK(adaptive_gan_weight(nll, 1e-12 * sum(last), last, 1, 100) == 100);
  backward(nll + generator_loss);  // both graphs are still there
  CHECK(last.grad().defined());
}

TEST_CASE("lpips: distance, gradient to the image, names of torchvision's weights") {
  Lpips lpips({});
  const Rng rng(4);
  for (const NamedVar& p : tensors(lpips)) {
    if (p.var.rank() == 4) init_uniform(p.var, p.var.dim(0) == 1 ? 0 : -0.1, 0.1, rng.fork(p.name));
  }
  CHECK(parameters(lpips).size() == 31);
  const Var a = Var(to(random_var({2, 3, 16, 16}, 13).value(), {}), true),
            b = Var(to(random_var({2, 3, 16, 16}, 14).value(), {}));
  const Var distance = lpips(a, b);
  CHECK(distance.shape() == Shape{2});
  for (double d : to_vector<double>(distance.value())) CHECK(d > 0);
  for (double d : to_vector<double>(lpips(b, b).value())) CHECK(d == 0);
  backward(sum(distance));
  CHECK(all_finite(a.grad()));
  for (const NamedVar& p : parameters(lpips)) CHECK(!p.var.grad().defined());

  // In double, for float images: the same distance, with the gradient in float.
  Lpips precise(kDouble);
  load_state_dict(precise, state_dict(lpips));
  const Var same = precise(a, b);
  CHECK(same.options().dtype == DType::f32);
  CHECK(sum(abs(same - distance)).item() < 1e-4 * sum(distance).item());
  CHECK(gradient(sum(same), a).dtype() == DType::f32);

  const Tensor t = zeros({1});
  const StateDict renamed = lpips_state_from_vgg16(
      {{"features.10.bias", t}, {"features.0.weight", t}, {"classifier.0.bias", t}, {"lin0.model.1.weight", t}});
  CHECK(renamed.size() == 3);
  for (const char* name : {"net.slice3.10.bias", "net.slice1.0.weight", "lin0.model.1.weight"})
    CHECK(renamed.count(name) == 1);
}

TEST_CASE("vqgan: a frozen residual block holds two results at a time beside its input") {
  const NoGrad no_grad;
  VqganConfig config;
  config.norm_groups = 4;
  const ResnetBlock block(config, 16, 16, {});
  const Var x(full({8, 16, 64, 64}, 0.5));
  const auto grown = [&] {
    const int64_t before = memory_statistics().in_use_bytes;
    reset_peak_memory();
    block(x);
    return static_cast<double>(memory_statistics().peak_bytes - before) / static_cast<double>(x.value().bytes());
  };
  CHECK(grown() < 3);  // two, and what a convolution works in
}
