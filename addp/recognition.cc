#include "addp/recognition.h"

#include <cmath>

#include "autograd/codes.h"
#include "autograd/ops.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "nn/state_dict.h"

namespace addp {

Tensor average_cells(const Tensor& tokens, int64_t cells) {
  const NoGrad no_grad;
  check(tokens.rank() == 3, "average_cells: tokens must be [B, L, D], found ", tokens.shape());
  const int64_t B = tokens.dim(0), L = tokens.dim(1), D = tokens.dim(2);
  const int64_t grid = std::llround(std::sqrt(static_cast<double>(L)));
  check(grid * grid == L && cells > 0 && grid % cells == 0, "average_cells: ", cells, " x ", cells,
        " cells do not divide a square grid of ", L, " tokens");
  const int64_t side = grid / cells;  // tokens of a cell
  const Var by_cell = permute(reshape(Var(tokens), {B, cells, side, cells, side, D}), {0, 1, 3, 2, 4, 5});
  return mean_axis(reshape(by_cell, {B * cells * cells, side * side, D}), 1).value().reshape({B, cells * cells * D});
}

Tensor token_features(const TokenPredictor& predictor, const Tensor& codes) {
  const NoGrad no_grad;
  const Tensor nothing = zeros(codes.shape(), predictor.decoder_pos_embed_learned.options());
  const Var x = predictor.forward_encoder(codes, nothing, nothing);
  return slice(x, 1, 1, x.dim(1)).value();
}

Tensor grid_features(const PixelEncoder& encoder, const Tensor& image, int64_t cells, bool tokenizer_norm) {
  const NoGrad no_grad;
  const Var embedded = tokenizer_norm ? encoder.encoder_tokens(Var(image)) : encoder.embed(Var(image));
  const Var tokens = encoder.run_blocks(embedded);
  return average_cells(slice(tokens, 1, 1, tokens.dim(1)).value(), cells);
}

Tensor recognition_features(const PixelEncoder& encoder, const Tensor& image, bool tokenizer_norm) {
  return grid_features(encoder, image, 1, tokenizer_norm);
}

VitConfig classifier_config(const Config& config, int64_t classes, double drop_path) {
  return {.image_size = config.image_size,
          .patch_size = config.patch_size,
          .channels = 3,
          .width = config.model.width,
          .depth = config.model.depth,
          .heads = config.model.heads,
          .mlp_ratio = config.model.mlp_ratio,
          .recompute_mlp = config.model.recompute_mlp,
          .classes = classes,
          .drop_path = drop_path};
}

void start_from_encoder(VisionTransformer& classifier, const PixelEncoder& encoder) {
  PixelEncoder source = encoder;  // shares the tensors; visit is for changing ones
  // The encoder's tokenizer_norm and norm have no place in the classifier, its fc_norm and head none in the encoder.
  load_state_dict(classifier, state_dict(source), {.source = "pixel encoder", .lenient = true});
}

// ---- Linear probe

LinearProbe::LinearProbe(int64_t width, int64_t classes, Options options)
    : norm(width, 1e-6, 0.1, false, options), head(width, classes, true, options) {}

Var LinearProbe::forward(const Var& features, bool train) const { return head(norm(features, train)); }

LinearProbe train_linear_probe(const Tensor& features, const Tensor& labels, int64_t classes, const StageConfig& config,
                               Rng rng) {
  check(features.rank() == 2 && labels.shape() == Shape{features.dim(0)},
        "train_linear_probe: features must be [N, D] and labels [N], found ", features.shape(), " and ",
        labels.shape());
  const int64_t N = features.dim(0);
  LinearProbe probe(features.dim(1), classes, features.options());
  init_normal(probe.head.weight, 0, 0.01, rng.fork("head"));
  Lars optimizer(parameters(probe), {});
  const CosineSchedule schedule = {.base = config.learning_rate(),
                                   .min = config.min_lr,
                                   .warmup = static_cast<double>(config.warmup_steps),
                                   .total = static_cast<double>(config.steps)};

  const std::vector<int64_t> all_labels = to_vector<int64_t>(labels);
  for (int64_t step = 0; step < config.steps; ++step) {
    std::vector<int64_t> index(static_cast<size_t>(config.batch)), label(index.size());
    for (size_t i = 0; i < index.size(); ++i) {
      index[i] = rng.below(N);
      label[i] = all_labels[static_cast<size_t>(index[i])];
    }
    const Options on_device = {DType::i64, features.device()};
    const Var batch = gather_rows(Var(features), to(from_vector(index, {config.batch}), on_device));
    backward(cross_entropy(probe.forward(batch, true), to(from_vector(label, {config.batch}), on_device), {}, 0));
    optimizer.step(schedule.at(static_cast<double>(step)));
  }
  return probe;
}

double probe_accuracy(const LinearProbe& probe, const Tensor& features, const Tensor& labels) {
  const NoGrad no_grad;
  const std::vector<int64_t> found = to_vector<int64_t>(argmax(probe.forward(Var(features), false).value()));
  const std::vector<int64_t> truth = to_vector<int64_t>(labels);
  int64_t right = 0;
  for (size_t i = 0; i < truth.size(); ++i) right += found[i] == truth[i];
  return static_cast<double>(right) / static_cast<double>(truth.size());
}

}  // namespace addp
