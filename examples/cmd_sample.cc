// Generation from the command line.
#include "examples/cmd_sample.h"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "addp/objective.h"
#include "addp/sampler.h"
#include "autograd/ops.h"
#include "data/image.h"
#include "examples/batches.h"
#include "examples/frozen.h"
#include "examples/pictures.h"
#include "examples/progress.h"
#include "examples/results.h"
#include "examples/systems.h"
#include "tensor/files.h"

namespace addp {
namespace {

SamplerConfig sampler_config(const SampleOptions& options, SamplerConfig config) {
  if (options.steps > 0) config.steps = options.steps;
  if (options.temperature >= 0) config.temperature = options.temperature;
  if (!options.schedule.empty()) config.schedule = options.schedule;
  if (options.top_p > 0) config.top_p = options.top_p;
  if (options.static_temperature) config.anneal = false;
  if (options.soft_end) config.final_decode = false;
  return config;
}

TokenChoice token_choice(const SampleOptions& options, TokenChoice choice) {
  if (options.temperature >= 0) choice.temperature = options.temperature;
  if (options.top_k > 0) choice.top_k = options.top_k;
  if (options.top_p > 0) choice.top_p = options.top_p;
  return choice;
}

// 0 where the named region's tokens are kept, 1 where they are to be sampled. [B, grid * grid]
Tensor inpainting_mask(const std::string& keep, int64_t B, int64_t grid) {
  const int64_t q = std::max<int64_t>(1, grid / 4);
  std::vector<float> mask(B * grid * grid);
  for (size_t i = 0; i < mask.size(); ++i) {
    const int64_t y = static_cast<int64_t>(i) / grid % grid, x = static_cast<int64_t>(i) % grid;
    const bool inside = y >= q && y < grid - q && x >= q && x < grid - q;
    const bool kept = keep == "left"     ? x < grid / 2
                      : keep == "top"    ? y < grid / 2
                      : keep == "border" ? !inside
                                         : inside;
    mask[i] = kept ? 0 : 1;
  }
  return from_vector(mask, {B, grid * grid});
}

void write_images(const Tensor& images, const std::string& folder, int64_t first) {
  for (int64_t i = 0; i < images.dim(0); ++i) {
    char name[32];
    std::snprintf(name, sizeof name, "/%06lld.png", static_cast<long long>(first + i));
    const Tensor one =
        images.view(i * images.numel() / images.dim(0), {1, images.dim(1), images.dim(2), images.dim(3)});
    write_file_atomically(folder + name, encode_png(image_grid(one, 1, 0)));
  }
}

// Systems other than ADDP: images, without a strip that shows how they came about.
int sample_system(const SampleOptions& options, const RunConfig& run, const std::string& out) {
  check_as(ErrorKind::usage, options.inpaint.empty(), "--inpaint: only ADDP completes images; ", options.run,
           " is a run of stage ", run.stage);
  const auto system = open_system(options.run, run, network_options(options.common));
  std::filesystem::create_directories(out + "/images");
  Rng rng = Rng(options.common.seed).fork("sample");
  std::vector<Var> parts;
  Progress progress("sample", 0, options.count);
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t done = 0; done < options.count; done += options.batch) {
    const int64_t B = std::min(options.batch, options.count - done);
    parts.emplace_back(to(system->draw(B, rng), Options()));
    write_images(parts.back().value(), out + "/images", done);
    progress.update(done + B, {}, B);
  }
  progress.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::string grid_file = out + "/samples.png";
  write_file_atomically(grid_file, grid_png(concat(parts, 0).value(), 8));
  const std::string time = concat_text(format_number(seconds / static_cast<double>(options.count)), " s");
  save_figures(options.run, "samples", {{"images sampled", std::to_string(options.count)}, {"time per image", time}});
  std::printf("%s\n%s per image (%s, batches of %lld)\n", grid_file.c_str(), time.c_str(), system->name().c_str(),
              static_cast<long long>(options.batch));
  return 0;
}

}  // namespace

int cmd_sample(const SampleOptions& options) {
  apply(options.common);
  const Options on = network_options(options.common);
  NoGrad no_grad;
  RunConfig run = read_run_config(options.run);
  if (!options.tokenizer.empty()) run.tokenizer = options.tokenizer;
  run.config.sampler = sampler_config(options, run.config.sampler);
  run.config.causal_sampler = token_choice(options, run.config.causal_sampler);
  const std::string out = options.out.empty() ? options.run + "/samples" : options.out;
  if (run.stage != "addp") return sample_system(options, run, out);
  const auto model = load_addp(options.run, on);
  const auto vqgan = load_vqgan(run.tokenizer, on);
  check_fits(*vqgan, run.config, run.tokenizer);
  const SamplerConfig& config = run.config.sampler;
  std::filesystem::create_directories(out + "/images");

  const int64_t L = run.config.tokens(), grid = run.config.grid();
  const bool inpaint = !options.inpaint.empty();
  Tensor originals;
  if (inpaint) {
    const std::string data = options.data.data.empty() ? run.data : options.data.data;
    originals = test_images(data, options.count, run.config.image_size).images;
    check_as(ErrorKind::usage, originals.dim(0) == options.count, "--count ", options.count, ": ", data, " has ",
             originals.dim(0), " test images to inpaint");
  }

  Rng rng = Rng(options.common.seed).fork("sample");
  AlternationStrip strip(6);
  std::vector<Var> parts;
  Tensor strip_end;
  Progress progress("sample", 0, options.count);
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t done = 0; done < options.count; done += options.batch) {
    const int64_t B = std::min(options.batch, options.count - done);
    SamplerState start = start_sampling(B, L, on);
    if (inpaint) {
      Shape shape = originals.shape();
      shape[0] = B;
      const Tensor image = originals.view(done * originals.numel() / originals.dim(0), shape);
      start = start_inpainting(*vqgan, vqgan->encode_codes(Var(to(image, on))),
                               to(inpainting_mask(options.inpaint, B, grid), on));
    }
    const StepCallback callback =
        done == 0 ? StepCallback([&](const SamplerState& s) { strip.add(s); }) : StepCallback();
    const Samples samples = sample(*model, *vqgan, start, config, rng, callback);
    const Tensor sampled = to(samples.image, Options());
    if (done == 0) strip_end = sampled;
    write_images(sampled, out + "/images", done);
    parts.emplace_back(sampled);
    progress.update(done + B, {}, B);
  }
  progress.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  const Tensor images = concat(parts, 0).value();
  const std::string name = inpaint ? "inpainting" : "samples";
  const std::string grid_file = out + "/" + name + ".png", strip_file = out + "/" + name + "_alternation.png";
  write_file_atomically(grid_file, inpaint ? pairs_png(originals, images, 8) : grid_png(images, 8));
  write_file_atomically(strip_file, strip.png(strip_end));
  const std::string time = concat_text(format_number(seconds / static_cast<double>(options.count)), " s");
  save_figures(options.run, name,
               {{"images sampled", std::to_string(options.count)},
                {"steps", std::to_string(config.steps)},
                {"time per image", time}});
  std::printf("%s\n%s\n%s per image (%lld steps, batches of %lld)\n", grid_file.c_str(), strip_file.c_str(),
              time.c_str(), static_cast<long long>(config.steps), static_cast<long long>(options.batch));
  return 0;
}

}  // namespace addp
