// Parity of what trains: the recognition ViT, five optimizer steps of fine-tuning, and the tokenizer's adversarial and
// perceptual losses.
#include <cmath>
#include <sstream>

#include "addp/pixel_encoder.h"
#include "autograd/ops.h"
#include "examples/parity.h"
#include "nn/discriminator.h"
#include "nn/lpips.h"
#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "nn/vit.h"
#include "nn/vqgan.h"

namespace addp::parity {
namespace {

VisionTransformer load_vit(Golden& golden, Options options) {
  const std::string weights = "vit_weights";
  const Config sizes = golden.config(weights);
  VitConfig config;
  config.image_size = sizes.image_size;
  config.patch_size = sizes.patch_size;
  config.width = sizes.model.width;
  config.depth = sizes.model.depth;
  config.heads = sizes.model.heads;
  config.mlp_ratio = sizes.model.mlp_ratio;
  config.classes = golden.input(weights, "head.bias", options).numel();
  VisionTransformer vit(config, options);
  golden.load(vit, weights);
  return vit;
}

// The reference's classifier reads the tokenizer's test image, normalised.
Var classifier_input(Golden& golden, Options options) {
  return normalize_pixels(Var(golden.input("vqgan_expected", "x0", options)));
}

Var classifier_loss(Golden& golden, const Var& logits, Options options) {
  return cross_entropy(logits, golden.input("vit_expected", "labels", options), {},
                       golden.number_after("vit_weights", "label_smoothing", ""));
}

// sin(a * n + b). The product is rounded before the sum, as in the reference: n reaches millions, so a fused
// multiply-add would move the sine by 4e-9 and the losses by more than the float64 tolerance.
double sine(double a, double n, double b) {
  const volatile double product = a * n;
  return std::sin(product + b);
}

// The reference's stand-in for VGG16's weights: sines of the flat index i and the parameter's number k.
double lpips_weight(const std::string& name, const Shape& shape, int64_t i, int64_t k) {
  const double n = static_cast<double>(i), number = static_cast<double>(k);
  if (name.starts_with("lin")) return 0.5 + 0.5 * sine(0.7, n, number);
  if (name.ends_with("bias")) return 0.1 * sine(1.3, n, number);
  const volatile double offset = 78.233 * number;
  const double fan_in = static_cast<double>(shape.numel() / shape[0]);
  return sine(12.9898, n, offset) * std::sqrt(2.0) * std::sqrt(2.0 / fan_in);
}

// lpips_parameters: "0:net.slice1.0.weight;1:..." gives each name its number.
Lpips make_lpips(Golden& golden, Options options) {
  std::map<std::string, int64_t> numbers;
  std::istringstream list(golden.text("gan_expected", "lpips_parameters"));
  for (std::string item; std::getline(list, item, ';');)
    numbers[item.substr(item.find(':') + 1)] = std::strtoll(item.c_str(), nullptr, 10);
  // These weights are matrices of rank 2, and float32 would leave three digits of their gradient.
  Lpips lpips({DType::f64, options.device});
  lpips.visit("", [&](const std::string& name, Var& var, Role) {
    check_as(ErrorKind::data, numbers.contains(name), "gan_expected: lpips_parameters has no ", name);
    std::vector<double> values(static_cast<size_t>(var.numel()));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = lpips_weight(name, var.shape(), static_cast<int64_t>(i), numbers[name]);
    copy_into(var.value(), from_vector(values, var.shape()));
  });
  return lpips;
}

}  // namespace

void check_classifier(Golden& golden, Report& report, Options options) {
  const std::string file = "vit_expected";
  VisionTransformer vit = load_vit(golden, options);
  const Var features = vit.features(classifier_input(golden, options));
  const Var logits = vit.classify(features);
  const Var loss = classifier_loss(golden, logits, options);
  backward(loss);

  report.compare(file, "features", features.value());
  report.compare(file, "logits", logits.value());
  report.compare(file, "loss", loss.value());
  report.compare_gradients(file, parameters(vit));
}

// As many steps as there are reference losses, all numbers from the metadata's sentence about the optimizer.
void check_fine_tuning(Golden& golden, Report& report, Options options) {
  const std::string file = "adamw_expected";
  const auto number = [&](const std::string& word) { return golden.number_after(file, "optimizer", word); };
  VisionTransformer vit = load_vit(golden, options);
  AdamwConfig config;
  config.beta1 = number("betas ");
  config.beta2 = number(",");  // "betas 0.9,0.95 ..."
  config.eps = number("eps ");
  config.weight_decay = number("weight decay ");
  config.clip_norm = number("clip norm ");
  const double layer_decay = number("layer decay ");
  const CosineSchedule schedule = {number("lr "), number("min "), number("warm-up "), number(" of ")};
  AdamW optimizer(parameters(vit), config,
                  [&](const std::string& name) { return layer_scale(name, vit.config.depth, layer_decay); });

  const Var image = classifier_input(golden, options);
  const int64_t steps = golden.expected(file, "losses").numel();
  std::vector<double> losses, norms, rates;
  for (int64_t s = 0; s < steps; ++s) {
    const Var loss = classifier_loss(golden, vit(image), options);
    backward(loss);
    rates.push_back(schedule.at(static_cast<double>(s) + number("evaluated at epoch ")));
    losses.push_back(loss.item());
    norms.push_back(optimizer.step(rates.back()));
  }
  report.compare(file, "losses", from_vector(losses, {steps}));
  report.compare(file, "grad_norms", from_vector(norms, {steps}));
  report.compare(file, "learning_rates", from_vector(rates, {steps}));
  for (const NamedVar& p : parameters(vit)) report.compare(file, "after." + p.name, p.var.value());
}

// One step of tokenizer training: the generator's pass, then the discriminator's, both in training mode.
void check_gan(Golden& golden, Report& report, Options options) {
  const std::string file = "gan_expected", weights = "discriminator_weights";
  Vqgan vqgan(golden.config("vqgan_weights").vqgan, options);
  golden.load(vqgan, "vqgan_weights");
  DiscriminatorConfig config;
  config.ndf = golden.integer(weights, "ndf");
  config.n_layers = golden.integer(weights, "n_layers");
  Discriminator discriminator(config, options);
  // The file has no running statistics: they start at 0 and 1.
  load_state_dict(parameters(discriminator), golden.file(weights).tensors, {weights, false});
  const Lpips lpips = make_lpips(golden, options);
  const Mode train = {true, nullptr};

  const Var image(golden.input("vqgan_expected", "x0", options));
  const Quantized q = vqgan.quantize(vqgan.encode(image));
  const Var decoded = vqgan.decode(q.z_q);
  // Float32 has the losses at the reference's reconstruction (ours is compared): a ReLU of the perceptual network may
  // lie so close to 0 there that the side it falls on, decided by rounding, is 1e-3 of all gradients.
  const Var rec =
      options.dtype == DType::f32 ? straight_through(decoded, golden.input(file, "reconstruction", options)) : decoded;
  const Var perceptual = lpips(affine(image, 2, -1), affine(rec, 2, -1));
  const Var nll = mean(abs(image - rec)) + mean(perceptual);
  const Var g_loss = hinge_generator_loss(discriminator(rec, train));
  const double scale = golden.number_after(file, "adaptive", "");
  const double adaptive = adaptive_gan_weight(nll, g_loss, vqgan.decoder.conv_out.weight, scale);
  const Var generator_loss = nll + adaptive * g_loss + q.codebook_loss;
  backward(generator_loss);
  for (NamedVar& p : parameters(discriminator)) p.var.clear_grad();

  const Var logits_real = discriminator(image, train), logits_fake = discriminator(detach(rec), train);
  const Var discriminator_loss = hinge_discriminator_loss(logits_real, logits_fake);
  backward(discriminator_loss);

  if (options.dtype == DType::f32)
    report.note("gan_expected in f32: losses at the reference's reconstruction, LPIPS network in f64 (see check_gan)");
  report.compare(file, "reconstruction", decoded.value());
  report.compare(file, "codebook_loss", q.codebook_loss.value());
  report.compare(file, "perceptual_loss", perceptual.value());
  report.compare(file, "nll_loss", nll.value());
  report.compare(file, "g_loss", g_loss.value());
  report.compare(file, "adaptive_weight", full({}, adaptive, {DType::f64, Device::cpu}));
  report.compare(file, "generator_loss", generator_loss.value());
  report.compare(file, "logits_real", logits_real.value());
  report.compare(file, "logits_fake", logits_fake.value());
  report.compare(file, "discriminator_loss", discriminator_loss.value());
  report.compare_gradients(file, parameters(vqgan));
  report.compare_gradients(file, parameters(discriminator), "discriminator.");
  discriminator.visit("", [&](const std::string& name, Var& var, Role role) {
    if (role == Role::buffer) report.compare(file, "after.discriminator." + name, var.value());
  });
}

}  // namespace addp::parity
