// Convolution, pooling and upsampling of images [B, C, H, W].
#include "autograd/ops.h"
#include "tensor/dispatch.h"

namespace addp {
namespace {

kernel::ConvShape conv_shape(const Var& x, const Var& weight, const Var& bias, int64_t stride, const Padding& padding) {
  check(x.rank() == 4 && weight.rank() == 4 && x.dim(1) == weight.dim(1),
        "conv2d: expected x [B, Ci, H, W] and weight [Co, Ci, kh, kw], found x ", x.shape(), " and weight ",
        weight.shape());
  check(x.numel() > 0 && weight.numel() > 0, "conv2d: empty input, x ", x.shape(), " and weight ", weight.shape());
  check(!bias.defined() || bias.shape() == Shape{weight.dim(0)}, "conv2d: bias must be [", weight.dim(0), "]");
  kernel::ConvShape s{};
  s.B = x.dim(0), s.Ci = x.dim(1), s.Hi = x.dim(2), s.Wi = x.dim(3);
  s.Co = weight.dim(0), s.kh = weight.dim(2), s.kw = weight.dim(3);
  s.stride = stride, s.pad_top = padding.top, s.pad_left = padding.left;
  check(stride >= 1, "conv2d: stride must be 1 or more, is ", stride);
  const auto fits = [](int64_t pad, int64_t kernel) { return pad >= 0 && pad < kernel; };
  check(fits(padding.top, s.kh) && fits(padding.bottom, s.kh) && fits(padding.left, s.kw) && fits(padding.right, s.kw),
        "conv2d: each padding must be at least 0 and smaller than the kernel, ", s.kh, " x ", s.kw);
  const int64_t height = s.Hi + padding.top + padding.bottom, width = s.Wi + padding.left + padding.right;
  check(height >= s.kh && width >= s.kw, "conv2d: kernel ", s.kh, " x ", s.kw, " is larger than the padded image ",
        height, " x ", width);
  s.Ho = (height - s.kh) / stride + 1, s.Wo = (width - s.kw) / stride + 1;
  return s;
}

// The sum of dy [B, C, H, W] over all but C, in fixed order: over space, then over the batch.
Tensor channel_sums(const Tensor& dy) {
  const int64_t B = dy.dim(0), C = dy.dim(1);
  Tensor planes = empty({B, C}, dy), sums = empty({C}, dy);
  dispatch(dy, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::sum_axis<T>(dev, planes.ptr<T>(), dy.ptr<T>(), B * C, dy.dim(2) * dy.dim(3), 1, 1.0);
    kernel::sum_axis<T>(dev, sums.ptr<T>(), planes.ptr<T>(), 1, B, C, 1.0);
  });
  return sums;
}

void check_windows(const char* op, const Var& x, int64_t k, int64_t smallest) {
  check(x.rank() == 4, op, ": expected [B, C, H, W], found ", x.shape());
  check(k >= 1 && x.dim(2) >= smallest && x.dim(3) >= smallest, op, ": k = ", k, " does not suit ", x.shape());
}

}  // namespace

Var conv2d(const Var& x, const Var& weight, const Var& bias, int64_t stride, Padding padding) {
  const kernel::ConvShape s = conv_shape(x, weight, bias, stride, padding);
  Tensor y = empty({s.B, s.Co, s.Ho, s.Wo}, x.value());
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::conv2d_fwd<T>(dev, y.ptr<T>(), x.value().ptr<T>(), weight.value().ptr<T>(),
                          bias.defined() ? bias.value().ptr<T>() : nullptr, s);
  });
  std::vector<Var> inputs{x, weight};
  if (bias.defined()) inputs.push_back(bias);
  return record("conv2d", y, inputs, [=](const Tensor& dy) {
    Gradients g(bias.defined() ? 3 : 2);
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      if (x.needs_grad()) {
        g[0] = empty_like(x.value());
        kernel::conv2d_bwd_data<T>(dev, g[0].ptr<T>(), dy.ptr<T>(), weight.value().ptr<T>(), s);
      }
      if (weight.needs_grad()) {
        g[1] = empty_like(weight.value());
        kernel::conv2d_bwd_weight<T>(dev, g[1].ptr<T>(), dy.ptr<T>(), x.value().ptr<T>(), s);
      }
    });
    if (bias.needs_grad()) g[2] = channel_sums(dy);
    return g;
  });
}

Var avg_pool(const Var& x, int64_t k) {
  check_windows("avg_pool", x, k, k);
  const int64_t planes = x.dim(0) * x.dim(1), H = x.dim(2), W = x.dim(3);
  Tensor y = empty({x.dim(0), x.dim(1), H / k, W / k}, x.value());
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::avg_pool_fwd<T>(dev, y.ptr<T>(), x.value().ptr<T>(), planes, H, W, k);
  });
  return record("avg_pool", y, {x}, [=, x = x.edge()](const Tensor& dy) {
    Tensor dx = empty(x.shape(), x.options());
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::avg_pool_bwd<T>(dev, dx.ptr<T>(), dy.ptr<T>(), planes, H, W, k);
    });
    return Gradients{dx};
  });
}

Var max_pool(const Var& x, int64_t k) {
  check_windows("max_pool", x, k, k);
  const int64_t planes = x.dim(0) * x.dim(1), H = x.dim(2), W = x.dim(3);
  Tensor y = empty({x.dim(0), x.dim(1), H / k, W / k}, x.value());
  Tensor argmax = empty(y.shape(), Options{DType::i64, y.device()});
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::max_pool_fwd<T>(dev, y.ptr<T>(), argmax.ptr<int64_t>(), x.value().ptr<T>(), planes, H, W, k);
  });
  return record("max_pool", y, {x}, [=, x = x.edge()](const Tensor& dy) {
    Tensor dx = empty(x.shape(), x.options());
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::max_pool_bwd<T>(dev, dx.ptr<T>(), dy.ptr<T>(), argmax.ptr<int64_t>(), planes, H, W, k);
    });
    return Gradients{dx};
  });
}

Var upsample(const Var& x, int64_t k) {
  check_windows("upsample", x, k, 0);
  const int64_t planes = x.dim(0) * x.dim(1), H = x.dim(2), W = x.dim(3);
  Tensor y = empty({x.dim(0), x.dim(1), H * k, W * k}, x.value());
  dispatch(y, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::upsample_fwd<T>(dev, y.ptr<T>(), x.value().ptr<T>(), planes, H, W, k);
  });
  return record("upsample", y, {x}, [=, x = x.edge()](const Tensor& dy) {
    Tensor dx = empty(x.shape(), x.options());
    dispatch(dy, [&](auto dev, auto t) {
      using T = decltype(t);
      kernel::upsample_bwd<T>(dev, dx.ptr<T>(), dy.ptr<T>(), planes, H, W, k);
    });
    return Gradients{dx};
  });
}

}  // namespace addp
