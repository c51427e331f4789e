// The device: memory kernels, copies and matrix products against the CPU, its errors, whole computations on it (golden
// parity, a training step, training by the program), and the rules that kernel files keep.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "addp/addp.h"
#include "addp/objective.h"
#include "addp/token_predictor.h"
#include "autograd/ops.h"
#include "examples/cmd_parity.h"
#include "examples/run_config.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "nn/vqgan.h"
#include "tensor/dispatch.h"
#include "tensor/roofline.h"
#include "tests/compare.h"
#include "tests/drive.h"

using namespace addp;

namespace {

constexpr Device kDevice = Device::cuda;
const std::vector<DType> kAllTypes = {DType::f32, DType::f64, DType::i64, DType::u8};

Tensor on_device(const Tensor& x) { return to(x, {x.dtype(), kDevice}); }
Tensor on_cpu(const Tensor& x) { return to(x, {x.dtype(), Device::cpu}); }

// 0 1 2 ..., which every type holds up to 250
Tensor counting(Shape shape, DType dtype) {
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i % 251);
  return to(from_vector(values, std::move(shape)), {dtype, Device::cpu});
}

std::string text_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("cuda: values go to the device and back, in any type") {
  for (DType from : kAllTypes) {
    const Tensor host = counting({7, 5}, from);
    CHECK(same_bits(on_cpu(on_device(host)), host));
    CHECK(same_bits(on_cpu(clone(on_device(host))), host));
    CHECK(same_bits(on_cpu(full({33}, 3, {from, kDevice})), full({33}, 3, {from, Device::cpu})));
    CHECK(same_bits(on_cpu(full({3, 16}, 7, {from, kDevice})), full({3, 16}, 7, {from, Device::cpu})));
    for (DType dtype : kAllTypes) {
      INFO(dtype_name(from), " to ", dtype_name(dtype));
      CHECK(same_bits(to(on_device(host), {dtype, Device::cpu}), to(host, {dtype, Device::cpu})));
      CHECK(same_bits(on_cpu(to(host, {dtype, kDevice})), to(host, {dtype, Device::cpu})));
      CHECK(same_bits(on_cpu(to(on_device(host), {dtype, kDevice})), to(host, {dtype, Device::cpu})));
    }
  }
  CHECK(to_vector<double>(empty({0}, {DType::f32, kDevice})).empty());
  CHECK(full({}, 2.5, {DType::f64, kDevice}).item() == 2.5);
  // Views that start anywhere.
  const Tensor host = counting({64}, DType::f32), device = on_device(host);
  for (int64_t begin : {0, 1, 3, 4})
    CHECK(same_bits(on_cpu(clone(device.view(begin, {32}))), clone(host.view(begin, {32}))));
}

TEST_CASE("cuda: blocks are copied and axes reordered as on the CPU") {
  const std::vector<std::vector<int>> orders = {{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {0, 2, 1}, {1, 2, 0}, {2, 0, 1}};
  for (DType dtype : kAllTypes) {
    for (const Shape& shape : {Shape{2, 3, 5}, Shape{3, 33, 35}, Shape{4, 2, 16}, Shape{1, 40, 8}, Shape{1, 65, 200}}) {
      const Tensor host = counting(shape, dtype), device = on_device(host);
      for (const std::vector<int>& order : orders) {
        INFO(dtype_name(dtype), " ", concat_text(shape), " order ", order[0], order[1], order[2]);
        const Shape result = {shape[order[0]], shape[order[1]], shape[order[2]]};
        const Tensor expected = empty(result, host), found = empty(result, device);
        dispatch_any(host, [&](auto, auto t) {
          using T = decltype(t);
          kernel::permute<T>(Cpu{}, expected.ptr<T>(), host.ptr<T>(), shape, order);
          kernel::permute<T>(current_cuda(), found.ptr<T>(), device.ptr<T>(), shape, order);
        });
        CHECK(same_bits(on_cpu(found), expected));
      }
    }
    for (const auto& [block, y_stride, x_stride] :
         {std::array<int64_t, 3>{5, 7, 6}, {16, 32, 48}, {1, 1, 3}, {16, 17, 16}}) {
      const Tensor x = counting({48 * 4}, dtype), y = counting({48 * 4}, dtype), y_device = on_device(y);
      const Tensor x_device = on_device(x);
      dispatch_any(x, [&](auto, auto t) {
        using T = decltype(t);
        kernel::copy_blocks<T>(Cpu{}, y.ptr<T>(), y_stride, x.ptr<T>() + 16, x_stride, block, 3);
        kernel::copy_blocks<T>(current_cuda(), y_device.ptr<T>(), y_stride, x_device.ptr<T>() + 16, x_stride, block, 3);
      });
      INFO("blocks of ", block);
      CHECK(same_bits(on_cpu(y_device), y));
    }
  }
}

TEST_CASE("cuda: what is not finite is found wherever it is") {
  for (DType dtype : {DType::f32, DType::f64}) {
    CHECK(all_finite(zeros({1000}, {dtype, kDevice})));
    for (int64_t at : {0, 1, 511, 999}) {
      for (double value : {INFINITY, -INFINITY, NAN}) {
        const Tensor x = zeros({1000}, {dtype, kDevice});
        fill(x.view(at, {1}), value);
        CHECK_FALSE(all_finite(x));
      }
    }
  }
}

TEST_CASE("cuda: matrix products in every form") {
  const int64_t M = 5, N = 7, K = 3, batch = 2;
  for (DType dtype : {DType::f32, DType::f64}) {
    const Tensor a = random_tensor({batch, M, K}, 1, {dtype, Device::cpu});
    const Tensor b = random_tensor({batch, K, N}, 2, {dtype, Device::cpu});
    for (int form = 0; form < 16; ++form) {
      const bool trans_a = form & 1, trans_b = form & 2, accumulate = form & 4, same_b = form & 8;
      INFO(dtype_name(dtype), " transposed ", trans_a, trans_b, " accumulate ", accumulate, " one B ", same_b);
      const Tensor expected = full({batch, M, N}, 1, a.options()), found = on_device(expected);
      const Tensor da = on_device(a), db = on_device(b);
      dispatch(a, [&](auto, auto t) {
        using T = decltype(t);
        kernel::gemm<T>(Cpu{}, expected.ptr<T>(), a.ptr<T>(), b.ptr<T>(), M, N, K, trans_a, trans_b, accumulate, batch,
                        M * N, M * K, same_b ? 0 : K * N);
        kernel::gemm<T>(current_cuda(), found.ptr<T>(), da.ptr<T>(), db.ptr<T>(), M, N, K, trans_a, trans_b, accumulate,
                        batch, M * N, M * K, same_b ? 0 : K * N);
      });
      CHECK(largest_difference(on_cpu(found), expected) < (dtype == DType::f64 ? 1e-13 : 1e-5));
    }
    // No inner extent: zeros, or what was there.
    for (const bool accumulate : {false, true}) {
      const Tensor c = full({M, N}, 2, {dtype, kDevice});
      dispatch(c, [&](auto dev, auto t) {
        using T = decltype(t);
        kernel::gemm<T>(dev, c.ptr<T>(), c.ptr<T>(), c.ptr<T>(), M, N, 0, false, false, accumulate, 1, 0, 0, 0);
      });
      CHECK(same_bits(on_cpu(c), full({M, N}, accumulate ? 2 : 0, {dtype, Device::cpu})));
    }
  }
}

TEST_CASE("cuda: wrong indices and mixed devices are errors") {
  const Var table(zeros({4, 3}, {DType::f32, kDevice}));
  for (int64_t wrong : {-1, 4, 1 << 30}) {
    const std::string message = message_of(ErrorKind::runtime, [&] {
      to_vector<float>(gather_rows(table, from_vector<int64_t>({0, wrong}, {2})).value());
    });
    CHECK(contains(message, "out of range"));
  }
  // Reported once, and gone.
  CHECK(to_vector<float>(gather_rows(table, from_vector<int64_t>({0, 3}, {2})).value()).size() == 6);
}

TEST_CASE("cuda: golden parity") {
  std::ostringstream out;
  const int code = run_parity("tests/golden", out, kDevice);
  INFO(out.str());
  CHECK(code == 0);
  CHECK(out.str().find("not compared") == std::string::npos);
}

TEST_CASE("cuda: a training step of ADDP gives the same bits each time, and the CPU's numbers") {
  const Config config = preset("tiny");
  const auto weights_after = [&](Options on) {
    Vqgan vqgan(config.vqgan, on);
    initialize(vqgan, Rng(1).fork("vqgan"));
    TokenPredictor predictor(config, on);
    initialize(predictor, Rng(1).fork("predictor"));
    Addp model(config, on);
    initialize(model, Rng(1).fork("addp"));
    Rng rng(5);
    const Tensor image = rng.uniform({2, 3, config.image_size, config.image_size}, {on.dtype, Device::cpu});
    const Tensor codes = vqgan.encode_codes(Var(to(image, on)));
    const NestedMasks masks = draw_nested_masks(2, config.tokens(), config.masking, rng, on);
    AdamW optimizer(parameters(model), {});
    const Var loss = training_step(model, vqgan, predictor, codes, masks, Mode{true, &rng}).loss;
    backward(loss);
    optimizer.step(1e-3);
    std::vector<Tensor> all = {loss.value()};
    for (const NamedVar& p : parameters(model)) all.push_back(clone(p.var.value()));
    return all;
  };
  const std::vector<Tensor> first = weights_after({DType::f32, kDevice}), second = weights_after({DType::f32, kDevice});
  for (size_t i = 0; i < first.size(); ++i) CHECK(same_bits(first[i], second[i]));
  const std::vector<Tensor> cpu = weights_after({DType::f32, Device::cpu});
  CHECK(first[0].item() == doctest::Approx(cpu[0].item()).epsilon(1e-5));
}

TEST_CASE("cuda: the program trains on it") {
  const ScratchFolder folder;
  const Words device = {"--device", cuda_backend_name(), "--batch", "4"};
  for (const std::string stage : {"vqgan", "predictor", "addp"}) {
    run_well(train_tiny(stage, folder / stage, 2) + device);
    CHECK(curve(folder / stage).size() == 2);
  }
  run_well(train_tiny("predictor", folder / "rounded", 2) + device + Words{"--matmul", "bf16"});
  CHECK(curve(folder / "rounded") != curve(folder / "predictor"));
  const std::string other = std::string(cuda_backend_name()) == "cuda" ? "emulated" : "cuda";
  check_fails(5, train_tiny("vqgan", folder / "other", 1) + Words{"--device", other}, {"--device " + other, "make"});
}

TEST_CASE("cuda: kernel files keep the rules") {
  int kernels = 0;
  for (const auto& entry : std::filesystem::directory_iterator("cuda")) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".cu" && extension != ".cuh") continue;
    INFO(entry.path().string());
    const std::string text = text_of(entry.path());
    CHECK(text.find("<<<") == std::string::npos);
    CHECK(text.find("__shared__") == std::string::npos);
    CHECK(text.find("std::vector<") == text.find("std::vector<int>&"));  // permute's argument
    const std::regex global("__global__([^{;]*)\\{\\s*(ADDP_MAX_THREADS)?");
    for (std::sregex_iterator at(text.begin(), text.end(), global), end; at != end; ++at) {
      const std::string head = (*at)[1].str();
      INFO(head);
      CHECK(head.find("__launch_bounds__") != std::string::npos);
      CHECK(head.find("_kernel(") != std::string::npos);
      CHECK((*at)[2].matched);
      ++kernels;
    }
  }
  CHECK(kernels > 5);
}

TEST_CASE("cuda: every kernel family has a row in the roofline table") {
  const std::string table = roofline_table();
  INFO(table);
  // Device, peaks and headings; then a row each, whose rates and share of them are told.
  int rows = 0;
  std::istringstream lines(table.substr(table.find("bound by")));
  std::string line;
  for (std::getline(lines, line); std::getline(lines, line);) {
    INFO(line);
    ++rows;
    CHECK((contains(line, "  memory ") || contains(line, "  arithmetic ") || contains(line, "  - ")));
    CHECK(line.find("nan") == std::string::npos);
    CHECK(line.find("inf") == std::string::npos);
  }
  CHECK(rows == 24);
  CHECK(contains(table, "NOT A GPU") == (std::string(cuda_backend_name()) == "emulated"));
}
