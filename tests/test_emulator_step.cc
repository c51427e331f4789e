// Memory traffic of whole training steps. A step of the base preset is too large for the emulator, so it is run dry:
// the program's own code launches every kernel, and nothing is computed. Each launch's traffic then comes from a
// formula of its sizes (tests/emulator_traffic.cc), which in race mode is held against what the emulator counts, launch
// by launch, in steps of the tiny preset. docs/cuda.md has the same count on paper.
#include <doctest/doctest.h>

#include <cstdio>
#include <map>

#include "addp/addp.h"
#include "addp/objective.h"
#include "addp/token_predictor.h"
#include "autograd/ops.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "nn/vqgan.h"
#include "tensor/dispatch.h"
#include "tensor/files.h"
#include "tests/emulator_traffic.h"
#include "tests/scratch.h"

namespace addp {
namespace {

constexpr Options kOn{DType::f32, Device::cuda};
using emulator::Launch;
using emulator::Trace;

// What a step launched, its optimizer apart.
struct StepLaunches {
  std::vector<Launch> networks, optimizer;
};

// The networks of a preset, and one batch of nothing in particular.
struct Workshop {
  Workshop(const std::string& name, int64_t B) : config(preset(name)), B(B) {
    initialize(vqgan, Rng(1).fork("vqgan"));
    initialize(predictor, Rng(1).fork("predictor"));
    initialize(model, Rng(1).fork("addp"));
  }

  StepLaunches addp_step(Trace& trace, AdamW& optimizer) const {
    Rng rng(4);
    const NestedMasks nested = masks();
    trace.take();
    const Tensor codes = vqgan.encode_codes(Var(image));
    backward(training_step(model, vqgan, predictor, codes, nested, Mode{true, &rng}).loss);
    return finish(trace, optimizer);
  }
  NestedMasks masks() const {
    Rng draws(3);
    return draw_nested_masks(B, config.tokens(), config.masking, draws, kOn);
  }
  StepLaunches predictor_step(Trace& trace, AdamW& optimizer) const {
    Rng rng(4);
    const MageMasks masks = mage_masks();
    trace.take();
    backward(predictor.forward(vqgan.encode_codes(Var(image)), masks, Mode{true, &rng}).loss);
    return finish(trace, optimizer);
  }
  MageMasks mage_masks() const {
    Rng draws(3);
    return draw_mage_masks(B, config.tokens(), config.masking, draws, kOn);
  }
  static StepLaunches finish(Trace& trace, AdamW& optimizer) {
    StepLaunches launches;
    launches.networks = trace.take();
    optimizer.start_step(1e-3);
    launches.optimizer = trace.take();
    return launches;
  }

  Config config;
  int64_t B;
  Vqgan vqgan{config.vqgan, kOn};
  TokenPredictor predictor{config, kOn};
  Addp model{config, kOn};
  Tensor image = full({B, 3, config.image_size, config.image_size}, 0.5, kOn);
};

// ---- The least that a step must move, on paper. Floats, without what is small beside them: norms' parameters and
// statistics, masks, indices.

struct Paper {
  std::map<std::string, double> floats;  // by family
  void add(const std::string& family, double count) { floats[family] += count; }
};

// rows: of all images together; those of I inputs become those of O outputs.
void linear(Paper& p, double rows, double I, double O, bool trained) {
  p.add("linear layers", (trained ? 3 : 1) * (rows * (I + O) + I * O));  // y, dx, dweight
  if (trained) p.add("sums over rows", rows * O);                        // dbias
}
// One that a linear layer reads is not kept: it is computed again for the gradient of the layer's weights.
void layer_norm(Paper& p, double rows, double D, bool trained, bool read_by_linear = true) {
  p.add("layer norm", (trained ? 5 + 2 * read_by_linear : 2) * rows * D);
}
void addition(Paper& p, double count) { p.add("additions", 3 * count); }

// After its attention the last block goes on with the rows `wanted` alone.
void blocks(Paper& p, const TransformerConfig& c, double depth, double rows, double wanted, bool trained) {
  const double D = static_cast<double>(c.width), hidden = D * c.mlp_ratio;
  for (int i = 0; i < depth; ++i) {
    const bool last = i + 1 == depth;
    const double left = last ? wanted : rows;
    layer_norm(p, rows, D, trained);
    linear(p, rows, D, 3 * D, trained);
    // Forward q, k, v in and the mix out; backward those, their gradients and lse.
    p.add("attention", (trained ? 12 : 4) * rows * D);
    for (int taken = 0; last && taken < 2; ++taken) {  // of the mix and of the stream; backward, put back
      p.add("tokens moved", (2 * left + (trained ? left + rows : 0)) * D);
    }
    linear(p, left, D, D, trained);
    layer_norm(p, left, D, trained);
    linear(p, left, D, hidden, trained);
    p.add("GELU", (trained ? 7 : 2) * left * hidden);  // 7: likewise
    linear(p, left, hidden, D, trained);
    // Each branch joins the stream; backward, its gradient does.
    addition(p, left * D + (trained ? rows * D : 0));
    addition(p, (trained ? 2 : 1) * left * D);
  }
}

// fc, GELU, norm, and the product with the vocabulary's embeddings, which takes no gradient to them.
void mlm_head(Paper& p, double rows, double D, double V, bool trained) {
  linear(p, rows, D, D, trained);
  p.add("GELU", (trained ? 5 : 2) * rows * D);
  layer_norm(p, rows, D, trained, false);
  p.add("linear layers", (trained ? 2 : 1) * (rows * (D + V) + D * V));
  if (trained) p.add("sums over rows", rows * V);
}

struct Sizes {
  double B, L, D, V, K;
  double masked;   // tokens an image that are unreliable; of the predictor's training, that are masked
  double noisier;  // the same one step before; of the predictor's training, tokens that are dropped
};

// One prediction of the token predictor for the masked places: no gradient, no token dropped.
void prediction(Paper& p, const Config& c, const Sizes& s, double masked) {
  const double rows = s.B * (1 + s.L), read = s.B * (1 + s.L - masked), asked = s.B * masked;
  p.add("tokens moved", (4 * rows + read + rows) * s.D);  // words; all places kept; those that are read to their places
  for (int positions = 0; positions < 2; ++positions) p.add("additions", 2 * rows * s.D);
  layer_norm(p, rows, s.D, false);
  blocks(p, c.predictor, static_cast<double>(c.predictor.depth), rows, read, false);
  layer_norm(p, read, s.D, false);
  linear(p, read, s.D, s.D, false);
  blocks(p, c.predictor, static_cast<double>(c.predictor.decoder_depth), rows, asked, false);
  layer_norm(p, asked, s.D, false);
  mlm_head(p, asked, s.D, s.V, false);
  p.add("tokens moved", (3 * asked + s.B * s.L) * s.K);  // logits of codes; probabilities to their places
  p.add("softmax and loss", 2 * asked * s.K);
}

// The tokenizer at work: a residual block has two norms and an addition, a change of resolution reads one and writes
// the other.
void tokenizer(Paper& p, const Config& c, double B, bool decoder) {
  const VqganConfig& v = c.vqgan;
  const auto size = [&](size_t level, double channels) {
    const double side = static_cast<double>(c.image_size >> level);
    return B * channels * side * side;
  };
  const auto channels = [&](size_t level) { return static_cast<double>(v.ch * v.ch_mult[level]); };
  const size_t top = v.ch_mult.size() - 1;
  const auto residual = [&](size_t level, double in) {
    p.add("group norm", 2 * (size(level, in) + size(level, channels(level))));
    addition(p, size(level, channels(level)));
  };
  for (int i = 0; i < 2; ++i) residual(top, channels(top));
  double in = decoder ? channels(top) : static_cast<double>(v.ch);
  for (size_t step = 0; step <= top; ++step) {
    const size_t level = decoder ? top - step : step;
    for (int64_t block = 0; block < v.num_res_blocks; ++block, in = channels(level)) residual(level, in);
    if (step == top) continue;
    const size_t coarse = decoder ? level : level + 1, fine = coarse - 1;
    p.add("resampling", size(coarse, in) + size(fine, in));
  }
  p.add("group norm", 2 * size(decoder ? 0 : top, channels(decoder ? 0 : top)));
  // Between an image's map and its tokens.
  p.add("tokens moved", 2 * B * static_cast<double>(c.tokens() * v.codebook_dim));
}

Paper addp_on_paper(const Config& c, const Sizes& s, double parameters) {
  Paper p;
  const double pixels = s.B * 3 * static_cast<double>(c.image_size * c.image_size);
  const double reliable = s.L - s.masked, asked = s.B * s.masked, read = s.B * (1 + reliable);
  const double N = s.B * (1 + s.L), M = N + s.B * reliable, D = s.D, E = static_cast<double>(c.vqgan.codebook_dim);
  tokenizer(p, c, s.B, false);
  tokenizer(p, c, s.B, true);
  for (double masked : {s.masked, s.noisier}) prediction(p, c, s, masked);
  p.add("tokens moved", 4 * s.B * s.L * E);  // the codes' embeddings, and the mix with the unreliable ones
  // The encoder: pixels become patches, tokens get positions.
  p.add("pixels", 4 * pixels);                             // clamp, normalise
  p.add("tokens moved", 6 * pixels);                       // split into channels, joined, into patches
  linear(p, s.B * s.L, D, D, true);                        // a patch has 3 * 16 * 16 numbers
  p.floats["linear layers"] -= s.B * s.L * 2 * D + D * D;  // pixels need no gradient
  p.add("tokens moved", 4 * N * D);                        // class token in front, and back
  p.add("additions", 2 * N * D);
  p.add("sums over rows", N * D);  // gradient of the positions
  layer_norm(p, N, D, true, false);
  p.add("dropout", 4 * N * D);
  blocks(p, c.model, static_cast<double>(c.model.depth), N, read, true);
  layer_norm(p, read, D, true);
  // The decoder: places from two tables of positions and the encoder's output, then the reliable tokens.
  linear(p, read, D, D, true);
  p.add("tokens moved", 2 * (read + N) * D);           // to their places
  p.add("tokens moved", 2 * N * D + 2 * 2 * N * D);    // both tables for each image; two selections
  p.add("tokens moved", 2 * 2 * N * D + 2 * N * D);    // their gradients: of each table, of the latent
  p.add("sums over rows", 2 * N * D + s.B * s.L * D);  // over the images, for three tables
  addition(p, N * D);
  p.add("tokens moved", s.B * s.L * D + 2 * s.B * reliable * D);  // tokens embedded, the reliable ones taken
  p.add("additions", 2 * s.B * s.L * D);
  p.add("tokens moved", s.B * (reliable + s.L) * D + s.B * s.L * D + s.V * D);  // and their gradients given back
  p.add("tokens moved", 4 * M * D);                                             // joined, and split
  blocks(p, c.model, static_cast<double>(c.model.decoder_depth), M, asked, true);
  layer_norm(p, asked, D, true);
  mlm_head(p, asked, D, s.V, true);
  p.add("tokens moved", 2 * asked * s.K);  // the places' targets
  p.add("softmax and loss", asked * (2 * s.V + s.K));
  // The norm of all gradients decides how far they are clipped, before any is used.
  p.add("optimizer", 8 * parameters);
  return p;
}

Paper predictor_on_paper(const Config& c, const Sizes& s, double parameters) {
  Paper p;
  const double N = s.B * (1 + s.L), kept = s.B * (1 + s.L - s.noisier), D = s.D;
  const double read = s.B * (1 + s.L - s.masked), asked = s.B * s.masked;
  tokenizer(p, c, s.B, false);
  p.add("tokens moved", 2 * N * D + N * D + s.V * D);  // words, and the gradient of their table
  p.add("additions", 2 * N * D);
  p.add("sums over rows", 2 * N * D);  // gradients of both tables of positions
  layer_norm(p, N, D, true, false);
  p.add("dropout", 4 * N * D);
  p.add("tokens moved", 2 * kept * D + (kept + N) * D);  // those that enter the encoder
  blocks(p, c.predictor, static_cast<double>(c.predictor.depth), kept, read, true);
  layer_norm(p, read, D, true);
  linear(p, read, D, D, true);
  p.add("tokens moved", 2 * (read + N) * D);  // all places again
  p.add("additions", 2 * N * D);
  blocks(p, c.predictor, static_cast<double>(c.predictor.decoder_depth), N, asked, true);
  layer_norm(p, asked, D, true);
  mlm_head(p, asked, D, s.V, true);
  p.add("softmax and loss", 2 * asked * s.V);
  p.add("optimizer", 8 * parameters);
  return p;
}

std::string family_of(const Launch& launch) {
  static const std::map<std::string, std::string> families = {
      {"layer_norm_fwd_kernel", "layer norm"},     {"layer_norm_bwd_kernel", "layer norm"},
      {"group_norm_fwd_kernel", "group norm"},     {"dropout_kernel", "dropout"},
      {"softmax_fwd_kernel", "softmax and loss"},  {"soft_cross_entropy_kernel", "softmax and loss"},
      {"sum_rows_kernel", "softmax and loss"},     {"sum_columns_kernel", "sums over rows"},
      {"sum_windows_kernel", "resampling"},        {"spread_windows_kernel", "resampling"},
      {"attention_fwd_kernel", "attention"},       {"attention_delta_kernel", "attention"},
      {"attention_dq_kernel", "attention"},        {"attention_dkv_kernel", "attention"},
      {"attention_balance_kernel", "attention"},   {"gemm", "linear layers"},
      {"bias_rows_kernel", "linear layers"},       {"convolve_kernel", "convolutions"},
      {"pack_weight_kernel", "convolutions"},      {"nearest_in_part_kernel", "convolutions"},
      {"nearest_of_parts_kernel", "convolutions"}, {"cross_entropy_kernel", "softmax and loss"},
  };
  const std::string name = plain_name(launch);
  const auto holds = [&](const char* part) { return launch.name.find(part) != std::string::npos; };
  if (holds("Gelu") || holds("(Unary)9")) return "GELU";
  if (holds("broadcast_map_kernel<Add")) return "additions";
  if (name == "map_kernel") return "pixels";
  const auto found = families.find(name);
  return found == families.end() ? "tokens moved" : found->second;
}

TEST_CASE("traffic: every launch of a tiny step moves what its formula says") {
  if (!emulator::race_mode()) return;
  Workshop w("tiny", 2);
  AdamW addp_optimizer(parameters(w.model), {.clip_norm = 1}), predictor_optimizer(parameters(w.predictor), {});
  Trace trace(Trace::Mode::run);
  for (const StepLaunches& step : {w.addp_step(trace, addp_optimizer), w.predictor_step(trace, predictor_optimizer)}) {
    for (const std::vector<Launch>* part : {&step.networks, &step.optimizer}) {
      for (const Launch& launch : *part) {
        if (family_of(launch) == "convolutions") continue;
        CAPTURE(launch.name);
        const double counted = launch.fetched + launch.stored, formula = traffic(launch);
        CHECK(counted > 0);
        CHECK(counted <= formula);
        if (!depends_on_data(launch)) CHECK(counted == formula);
      }
    }
  }
}

// How many bytes the families of kernels moved in a step of the base preset, and the least on paper.
struct BaseStep {
  std::map<std::string, double> moved;
  Paper paper;
};

BaseStep base_step(bool predictor) {
  constexpr int64_t B = 32;
  Trace trace(Trace::Mode::dry);
  Workshop w("base", B);
  AdamW optimizer(predictor ? parameters(w.predictor) : parameters(w.model), {.clip_norm = 1});
  const StepLaunches step = predictor ? w.predictor_step(trace, optimizer) : w.addp_step(trace, optimizer);
  BaseStep result;
  for (const Launch& launch : step.networks) {
    const std::string family = family_of(launch);
    if (family != "convolutions") result.moved[family] += traffic(launch);
  }
  for (const Launch& launch : step.optimizer) result.moved["optimizer"] += traffic(launch);

  const auto ones = [](const Tensor& mask) { return static_cast<double>(ones_per_row(mask)); };
  const Sizes sizes{static_cast<double>(B),
                    static_cast<double>(w.config.tokens()),
                    static_cast<double>(w.config.model.width),
                    static_cast<double>(w.config.vocabulary),
                    static_cast<double>(w.config.codes()),
                    ones(predictor ? w.mage_masks().mask_all : w.masks().mask_t),
                    ones(predictor ? w.mage_masks().mask_dropped : w.masks().mask_t_next)};
  const auto parameters = static_cast<double>(optimizer.arena().size());
  result.paper =
      predictor ? predictor_on_paper(w.config, sizes, parameters) : addp_on_paper(w.config, sizes, parameters);
  return result;
}

// The row of the table in docs/cuda.md: "| additions | ... | 31.24 | 31.24 | 1.00 |".
void check_in_docs(const std::string& docs, const std::string& name, double least, double moved) {
  char figures[80];
  std::snprintf(figures, sizeof figures, "| %.2f | %.2f | %.2f |", least / 1e9, moved / 1e9, moved / least);
  const size_t row = docs.find("\n| " + name + " |");
  INFO("docs/cuda.md, ", name, ": expected ", std::string(figures));
  REQUIRE(row != std::string::npos);
  CHECK(contains(docs.substr(row, docs.find('\n', row + 1) - row), figures));
}

// Each family against its limit, and all of them together; ADDP's families each against its row in docs/cuda.md.
void check_step(const BaseStep& step, const std::string& docs, const std::string& together, bool has_rows) {
  double all_moved = 0, all_least = 0;
  for (const auto& [family, floats] : step.paper.floats) {
    CAPTURE(family);
    REQUIRE(step.moved.count(family) == 1);
    const double least = 4 * floats, moved = step.moved.at(family);
    CHECK(moved > 0.99 * least);  // or the paper forgot what need not be done
    if (has_rows) check_in_docs(docs, family, least, moved);
    if (family == "attention") continue;  // bound by its products
    CHECK(moved < 1.5 * least);
    if (family == "linear layers") continue;
    all_moved += moved, all_least += least;
  }
  CHECK(all_moved < 1.5 * all_least);
  check_in_docs(docs, together, all_least, all_moved);
  for (const auto& [family, bytes] : step.moved) CHECK(step.paper.floats.count(family) == 1);
}

TEST_CASE("traffic: the memory-bound kernels of a base step move less than 1.5 times what they must") {
  const std::string docs = read_file("docs/cuda.md");
  check_step(base_step(false), docs, "memory-bound together", true);
  check_step(base_step(true), docs, "token predictor's step, memory-bound together", false);
}

TEST_CASE("traffic: a group that outgrows the cache is read twice") {
  if (!emulator::race_mode()) return;
  Trace trace(Trace::Mode::run);
  const auto floats_moved = [&](int64_t S) {
    constexpr int64_t C = 4, G = 2;  // two channels a group
    const Tensor x = ones({C, S}, kOn), y = empty_like(x), parameters = ones({4, C}, kOn);
    float* p = parameters.ptr<float>();
    trace.take();
    kernel::group_norm_fwd<float>(current_cuda(), y.ptr<float>(), p, p + C, x.ptr<float>(), p + 2 * C, p + 3 * C, 1, C,
                                  S, G, 1e-6, false);
    const Launch launch = trace.take().at(0);
    // In one of the orders in which the emulator runs threads, two floats are still in the cache the second time.
    CHECK(traffic(launch) - (launch.fetched + launch.stored) >= 0);
    CHECK(traffic(launch) - (launch.fetched + launch.stored) <= 8);
    return (launch.fetched + launch.stored) / static_cast<double>(x.bytes());
  };
  CHECK(floats_moved(30000) < 2.01);
  CHECK(floats_moved(40000) > 2.99);
}

}  // namespace
}  // namespace addp
