// How much of an image survives the tokenizer.
#include "examples/cmd_reconstruct.h"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>

#include "autograd/ops.h"
#include "examples/batches.h"
#include "examples/frozen.h"
#include "examples/pictures.h"
#include "examples/progress.h"
#include "examples/results.h"
#include "tensor/files.h"

namespace addp {

int cmd_reconstruct(const ReconstructOptions& options) {
  apply(options.common);
  const Options on = network_options(options.common);
  NoGrad no_grad;
  const RunConfig run = read_run_config(options.run);
  const auto tokenizer = load_tokenizer(options.run, on);
  const Tensor images =
      test_images(options.data.data.empty() ? run.data : options.data.data, options.count, run.config.image_size)
          .images;
  const Tensor codes = tokenizer->encode(to(images, on));
  const Tensor decoded = to(tokenizer->decode(codes), Options());

  const Var difference = sub(Var(decoded), Var(images));
  const double l1 = mean(abs(difference)).item(), psnr = -10 * std::log10(mean(square(difference)).item());
  const std::vector<int64_t> list = to_vector<int64_t>(codes);
  const size_t used = std::set<int64_t>(list.begin(), list.end()).size();

  const std::string out = options.out.empty() ? options.run + "/samples" : options.out;
  std::filesystem::create_directories(out);
  const std::string file = out + "/reconstructions_test.png";
  write_file_atomically(file, pairs_png(images, decoded, 8));
  const Figures figures = {{"PSNR", format_number(psnr) + " dB"},
                           {"mean absolute error", format_number(l1)},
                           {"codes used here", concat_text(used, " of ", run.config.codes())}};
  save_figures(options.run, "reconstruct", figures);
  std::printf("%s\n", file.c_str());
  for (const auto& [name, value] : figures)
    std::printf("%s: %s (%lld test images)\n", name.c_str(), value.c_str(), static_cast<long long>(images.dim(0)));
  return 0;
}

}  // namespace addp
