// Kernels timed on the device by events, beside their counted bytes and operations.
#include "tensor/roofline.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "cuda/context.h"
#include "cuda/device.h"
#include "tensor/matmul_precision.h"
#include "tensor/tensor.h"

namespace addp {
namespace {

// ---- What the device can do at most; 0 where it is not known

struct Peaks {
  double bytes = 0;                    // a second
  double f32 = 0, tf32 = 0, bf16 = 0;  // operations a second, the last two on tensor cores
};

// Operations a clock cycle of one multiprocessor, from NVIDIA's architecture papers (dense tensor cores).
struct Rates {
  int compute;  // capability, major * 10 + minor
  double f32, tf32, bf16;
};
constexpr Rates kRates[] = {{75, 128, 0, 0},     {80, 128, 1024, 2048}, {86, 256, 256, 512},    {87, 256, 256, 512},
                            {89, 256, 256, 512}, {90, 256, 2048, 4096}, {100, 256, 4096, 8192}, {120, 256, 256, 512}};

double attribute(cudaDeviceAttr name) {
  int value = 0;
  if (cudaDeviceGetAttribute(&value, name, 0) == cudaSuccess) return value;
  cudaGetLastError();  // a device that does not tell is no failure
  return 0;
}

Peaks device_peaks() {
  Peaks peaks;
  // Two transfers a clock cycle; the clock is told in kHz, the width in bits.
  peaks.bytes = 2 * 1e3 * attribute(cudaDevAttrMemoryClockRate) * attribute(cudaDevAttrGlobalMemoryBusWidth) / 8;
  const int compute = static_cast<int>(10 * attribute(cudaDevAttrComputeCapabilityMajor) +
                                       attribute(cudaDevAttrComputeCapabilityMinor));
  const double cycles = 1e3 * attribute(cudaDevAttrClockRate) * attribute(cudaDevAttrMultiProcessorCount);
  for (const Rates& rates : kRates) {
    if (rates.compute != compute) continue;
    peaks.f32 = cycles * rates.f32, peaks.tf32 = cycles * rates.tf32, peaks.bf16 = cycles * rates.bf16;
  }
  return peaks;
}

// ---- Cases

struct Case {
  const char* name;
  std::string sizes;
  double bytes, flops;
  std::function<void(Cuda)> run;
  MatmulPrecision precision = MatmulPrecision::f32;
};

// Arrays of ones that live as long as the cases; small, so that sums stay finite.
class Cases {
 public:
  explicit Cases(bool small) : small_(small) {}

  float* floats(int64_t n) {
    kept_.push_back(full({n}, 0.5, {DType::f32, Device::cuda}));
    return kept_.back().ptr<float>();
  }
  int64_t* indices(int64_t n, int64_t limit) {
    std::vector<int64_t> values(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) values[static_cast<size_t>(i)] = i * 7919 % limit;
    kept_.push_back(to(from_vector(values, {n}), {DType::i64, Device::cuda}));
    return kept_.back().ptr<int64_t>();
  }
  int64_t size(int64_t full, int64_t small) const { return small_ ? small : full; }

  // floats: how many it must read and write.
  void add(const char* name, const std::string& sizes, double floats, double flops, std::function<void(Cuda)> run,
           MatmulPrecision precision = MatmulPrecision::f32) {
    list.push_back({name, sizes, 4 * floats, flops, std::move(run), precision});
  }

  std::vector<Case> list;

 private:
  bool small_;
  std::vector<Tensor> kept_;
};

std::string by(std::initializer_list<int64_t> extents) {
  std::string text;
  for (int64_t extent : extents) text += (text.empty() ? "" : " x ") + std::to_string(extent);
  return text;
}

using namespace kernel;

void add_pointwise(Cases& c) {
  const int64_t N = c.size(32768, 16), D = c.size(768, 32), n = N * D;
  const auto count = static_cast<double>(n);
  float *x = c.floats(n), *y = c.floats(n), *z = c.floats(n), *v = c.floats(n), *b = c.floats(D);
  const std::string sizes = by({N, D});
  c.add("copy", sizes, 2 * count, 0, [=](Cuda d) { copy_blocks<float>(d, y, n, x, n, n, 1); });
  c.add("transpose", sizes, 2 * count, 0, [=](Cuda d) { permute<float>(d, y, x, {N, D}, {1, 0}); });
  c.add("add", sizes, 3 * count, 0, [=](Cuda d) { binary<float>(d, Binary::add, y, x, z, n, n); });
  c.add("bias + GELU", sizes, 2 * count, 0, [=](Cuda d) { bias_gelu_fwd<float>(d, y, x, b, N, D); });
  c.add("bias + GELU, backward", sizes, 3 * count, 0, [=](Cuda d) { bias_gelu_bwd<float>(d, y, z, x, b, N, D); });
  c.add("dropout", sizes, 2 * count, 0, [=](Cuda d) { dropout<float>(d, y, x, n, 1, 0.1, 1, 2, 3); });
  c.add("sum of rows", sizes, count, 0, [=](Cuda d) { sum_axis<float>(d, b, x, 1, N, D, 1.0); });
  const int64_t* index = c.indices(N, N);
  c.add("gather rows", sizes, 2 * count, 0, [=](Cuda d) { gather_rows_fwd<float>(d, y, x, index, 1, N, N, D, true); });
  const Tensor halves = full({3}, 0.5, {DType::f64, Device::cuda});
  c.add("AdamW", sizes, 7 * count, 0, [=](Cuda d) {
    adamw<float>(d, x, y, z, v, n, {0.9, 0.95, 1e-8, 0.05, 1, 0}, halves.ptr<double>(), halves.ptr<double>());
  });
}

void add_norms(Cases& c) {
  const int64_t N = c.size(32768, 16), D = c.size(768, 32), n = N * D;
  const auto count = static_cast<double>(n);
  float *x = c.floats(n), *y = c.floats(n), *z = c.floats(n), *w = c.floats(D), *b = c.floats(D);
  float *dw = c.floats(D), *db = c.floats(D), *mean = c.floats(N), *rstd = c.floats(N);
  const std::string sizes = by({N, D});
  c.add("layer norm", sizes, 2 * count, 0,
        [=](Cuda d) { layer_norm_fwd<float>(d, y, mean, rstd, x, w, b, N, D, 1e-6); });
  c.add("layer norm, backward", sizes, 3 * count, 0,
        [=](Cuda d) { layer_norm_bwd<float>(d, y, dw, db, z, x, w, mean, rstd, N, D); });
  c.add("softmax", sizes, 2 * count, 0, [=](Cuda d) { softmax_fwd<float>(d, y, x, N, D); });
  c.add("soft cross entropy", sizes, 3 * count, 0,
        [=](Cuda d) { soft_cross_entropy<float>(d, rstd, y, x, z, mean, N, D, D, 0.1); });

  const int64_t B = c.size(8, 1), C = c.size(128, 4), side = c.size(128, 8), S = side * side, G = c.size(32, 2);
  const int64_t m = B * C * S;
  const auto pixels = static_cast<double>(m);
  float *image = c.floats(m), *result = c.floats(m), *gradient = c.floats(m), *cw = c.floats(C), *cb = c.floats(C);
  float *dcw = c.floats(C), *dcb = c.floats(C), *group_mean = c.floats(B * G), *group_rstd = c.floats(B * G);
  const std::string planes = by({B, C, side, side});
  c.add("group norm + SiLU", planes, 2 * pixels, 0, [=](Cuda d) {
    group_norm_fwd<float>(d, result, group_mean, group_rstd, image, cw, cb, B, C, S, G, 1e-6, true);
  });
  c.add("group norm + SiLU, backward", planes, 3 * pixels, 0, [=](Cuda d) {
    group_norm_bwd<float>(d, result, dcw, dcb, gradient, image, cw, cb, group_mean, group_rstd, B, C, S, G, true);
  });
}

void add_attention(Cases& c) {
  const int64_t B = c.size(32, 1), L = c.size(257, 9), H = c.size(12, 2), Dh = c.size(64, 8), n = B * L * H * Dh;
  const auto count = static_cast<double>(n), product = 2 * count * static_cast<double>(L);
  float *qkv = c.floats(3 * n), *o = c.floats(n), *lse = c.floats(B * H * L), *d_o = c.floats(n);
  float* dqkv = c.floats(3 * n);
  const std::string sizes = by({B, L, H, Dh});
  c.add("attention", sizes, 4 * count, 2 * product,
        [=](Cuda d) { attention_fwd<float>(d, o, lse, qkv, B, L, H, Dh, 0.125, false); });
  c.add("attention, backward", sizes, 8 * count, 5 * product,
        [=](Cuda d) { attention_bwd<float>(d, dqkv, d_o, o, lse, qkv, B, L, H, Dh, 0.125, false); });
}

void add_convolution(Cases& c) {
  const int64_t B = c.size(8, 1), C = c.size(128, 4), side = c.size(64, 6), n = B * C * side * side,
                weights = 9 * C * C;
  const ConvShape s{B, C, side, side, C, 3, 3, 1, 1, 1, side, side};
  float *x = c.floats(n), *y = c.floats(n), *w = c.floats(weights), *b = c.floats(C);
  const double floats = static_cast<double>(2 * n + weights),
               flops = 2 * static_cast<double>(n) * 9 * static_cast<double>(C);
  const std::string sizes = by({B, C, side, side}) + ", 3 x 3";
  c.add("convolution", sizes, floats, flops, [=](Cuda d) { conv2d_fwd<float>(d, y, x, w, b, s); });
  c.add("convolution, to its input", sizes, floats, flops, [=](Cuda d) { conv2d_bwd_data<float>(d, y, x, w, s); });
  c.add("convolution, to its weight", sizes, floats, flops, [=](Cuda d) { conv2d_bwd_weight<float>(d, w, y, x, s); });
}

void add_products(Cases& c) {
  const int64_t M = c.size(8224, 9), K = c.size(768, 12), N = c.size(3072, 20);
  float *x = c.floats(M * K), *y = c.floats(M * N), *w = c.floats(N * K), *b = c.floats(N);
  const double floats = static_cast<double>(M * K + M * N + N * K);
  const double flops = 2 * static_cast<double>(M) * static_cast<double>(K) * static_cast<double>(N);
  const std::string sizes = by({M, K, N});
  const auto layer = [=](Cuda d) { linear_fwd<float>(d, y, x, w, b, M, N, K); };
  c.add("linear, f32", sizes, floats, flops, layer);
  c.add("linear, tf32", sizes, floats, flops, layer, MatmulPrecision::tf32);
  c.add("linear, bf16", sizes, floats, flops, layer, MatmulPrecision::bf16);
  const int64_t codes = c.size(1024, 12), D = c.size(256, 8);
  float *z = c.floats(M * D), *codebook = c.floats(codes * D);
  int64_t* found = c.indices(M, codes);
  c.add("nearest codes", by({M, codes, D}), static_cast<double>((M + codes) * D),
        2 * static_cast<double>(M) * static_cast<double>(codes * D),
        [=](Cuda d) { nearest_codes<float>(d, found, z, codebook, M, codes, D); });
}

// ---- Timing

// Seconds of a run, the mean of `runs` after one to warm up.
double device_seconds(Cuda dev, const std::function<void(Cuda)>& run, int runs) {
  cudaEvent_t begin{}, end{};
  addp::cuda(cudaEventCreate(&begin), "cudaEventCreate");
  addp::cuda(cudaEventCreate(&end), "cudaEventCreate");
  run(dev);
  addp::cuda(cudaEventRecord(begin, stream_of(dev)), "cudaEventRecord");
  for (int i = 0; i < runs; ++i) run(dev);
  addp::cuda(cudaEventRecord(end, stream_of(dev)), "cudaEventRecord");
  addp::cuda(cudaEventSynchronize(end), "roofline");
  float milliseconds = 0;
  addp::cuda(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
  addp::cuda(cudaEventDestroy(begin), "cudaEventDestroy");
  addp::cuda(cudaEventDestroy(end), "cudaEventDestroy");
  return static_cast<double>(milliseconds) / 1e3 / runs;
}

std::string printed(const char* format, double value) {
  char text[40];
  std::snprintf(text, sizeof text, format, value);
  return text;
}
// "-" for what is not known, or none.
std::string rate_text(double rate, double unit) { return rate > 0 ? printed("%.1f", rate / unit) : "-"; }

std::string row_text(const Case& c, const Peaks& peaks, double seconds) {
  const double peak = c.precision == MatmulPrecision::f32    ? peaks.f32
                      : c.precision == MatmulPrecision::tf32 ? peaks.tf32
                                                             : peaks.bf16;
  const bool known = peaks.bytes > 0 && (c.flops == 0 || peak > 0);
  const double memory = known ? c.bytes / peaks.bytes : 0, arithmetic = known && c.flops > 0 ? c.flops / peak : 0;
  char row[240];
  std::snprintf(row, sizeof row, "%-28s %-24s %9.2f %9.2f %10.1f %8s %8s  %-10s %s\n", c.name, c.sizes.c_str(),
                c.bytes / 1e6, c.flops / 1e9, seconds * 1e6, rate_text(c.bytes / seconds, 1e9).c_str(),
                rate_text(c.flops / seconds, 1e12).c_str(),
                !known                ? "-"
                : memory > arithmetic ? "memory"
                                      : "arithmetic",
                known ? printed("%3.0f %%", 100 * std::max(memory, arithmetic) / seconds).c_str() : "-");
  return row;
}

}  // namespace

std::string roofline_table() {
  const Cuda dev = current_cuda();
  const bool emulated = std::string(cuda_backend_name()) == "emulated";
  const Peaks peaks = device_peaks();
  Cases cases(emulated);
  add_pointwise(cases);
  add_norms(cases);
  add_attention(cases);
  add_convolution(cases);
  add_products(cases);

  std::string text = concat_text("device      ", cuda_device_name(), "\n");
  if (emulated) text += "            NOT A GPU: the emulator ran small sizes; its times and rates mean nothing\n";
  text += concat_text("peaks       memory ", rate_text(peaks.bytes, 1e9), " GB/s; products f32 ",
                      rate_text(peaks.f32, 1e12), ", tf32 ", rate_text(peaks.tf32, 1e12), ", bf16 ",
                      rate_text(peaks.bf16, 1e12), " TFLOP/s (from the device's clocks; dense)\n\n");
  char heading[240];
  std::snprintf(heading, sizeof heading, "%-28s %-24s %9s %9s %10s %8s %8s  %-10s %s\n", "kernels, float32", "sizes",
                "MB", "GFLOP", "us", "GB/s", "TFLOP/s", "bound by", "of what that allows");
  text += heading;
  const MatmulPrecision before = matmul_precision();
  for (const Case& one : cases.list) {
    set_matmul_precision(one.precision);
    text += row_text(one, peaks, device_seconds(dev, one.run, emulated ? 1 : 20));
  }
  set_matmul_precision(before);
  synchronize(dev);
  return text;
}

}  // namespace addp
