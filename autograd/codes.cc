// Computations that have no gradient: shape checks around the kernels of tensor/kernels.h.
#include "autograd/codes.h"

#include "tensor/dispatch.h"

namespace addp {
namespace {

// Time of the kernels just called goes to `op`, which streams what it reads and writes.
void claim(const char* op, std::initializer_list<Tensor> touched, double flops = 0) {
  claim_kernels(Phase::frozen, op, [&] {
    Cost cost{flops, 0};
    for (const Tensor& x : touched) cost.bytes += static_cast<double>(x.bytes());
    return cost;
  });
}

Tensor indices(Shape shape, const Tensor& like) { return empty(std::move(shape), {DType::i64, like.device()}); }

// The shape and number of x's rows, the last axis being the row.
Shape rows_of(const char* op, const Tensor& x) {
  check(x.rank() >= 1 && x.dim(-1) > 0, op, ": the last axis must not be empty, found ", x.shape());
  return Shape(x.shape().begin(), x.shape().end() - 1);
}

}  // namespace

Tensor nearest_codes(const Tensor& z, const Tensor& codebook) {
  const Shape rows = rows_of("nearest_codes", z);
  check(codebook.rank() == 2 && codebook.dim(0) > 0 && codebook.dim(1) == z.dim(-1),
        "nearest_codes: codebook must be [K, ", z.dim(-1), "], is ", codebook.shape(), "; z is ", z.shape());
  Tensor codes = indices(rows, z);
  dispatch(z, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::nearest_codes<T>(dev, codes.ptr<int64_t>(), z.ptr<T>(), codebook.ptr<T>(), codes.numel(), codebook.dim(0),
                             z.dim(-1));
  });
  claim("nearest_codes", {z, codebook, codes}, 2.0 * static_cast<double>(z.numel() * codebook.dim(0)));
  return codes;
}

void code_sums(const Tensor& z, const Tensor& codes, int64_t codebook_size, Tensor& count, Tensor& sum) {
  check(codes.shape() == rows_of("code_sums", z), "code_sums: codes must be one per row of z, are ", codes.shape(),
        "; z is ", z.shape());
  count = empty({codebook_size}, z);
  sum = empty({codebook_size, z.dim(-1)}, z);
  dispatch(z, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::code_sums<T>(dev, count.ptr<T>(), sum.ptr<T>(), z.ptr<T>(), codes.ptr<int64_t>(), codes.numel(),
                         codebook_size, z.dim(-1));
  });
  claim("code_sums", {z, codes, count, sum});
}

Tensor smallest_mask(const Tensor& x, const std::vector<int64_t>& count) {
  check(x.rank() == 2 && static_cast<int64_t>(count.size()) == x.dim(0),
        "smallest_mask: x must be [B, L] with B counts, is ", x.shape(), " with ", count.size(), " counts");
  for (int64_t n : count) {
    check(n >= 0 && n <= x.dim(1), "smallest_mask: count ", n, " is outside [0, ", x.dim(1), "]");
  }
  Tensor mask = empty_like(x);
  dispatch(x, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::smallest_mask<T>(dev, mask.ptr<T>(), x.ptr<T>(), count.data(), x.dim(0), x.dim(1));
  });
  claim("smallest_mask", {x, mask});
  return mask;
}

Tensor argmax(const Tensor& x) {
  Tensor index = indices(rows_of("argmax", x), x);
  dispatch(x, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::argmax_rows<T>(dev, index.ptr<int64_t>(), x.ptr<T>(), index.numel(), x.dim(-1));
  });
  claim("argmax", {x, index});
  return index;
}

Tensor sample_categorical(const Tensor& prob, const Tensor& uniform) {
  const Shape rows = rows_of("sample_categorical", prob);
  check(uniform.shape() == rows, "sample_categorical: uniform must be ", rows, ", is ", uniform.shape(), "; prob is ",
        prob.shape());
  Tensor codes = indices(rows, prob);
  dispatch(prob, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::sample_categorical<T>(dev, codes.ptr<int64_t>(), prob.ptr<T>(), uniform.ptr<T>(), codes.numel(),
                                  prob.dim(-1));
  });
  claim("sample_categorical", {prob, uniform, codes});
  return codes;
}

Tensor top_p(const Tensor& prob, double p) {
  const int64_t rows = rows_of("top_p", prob).numel();
  check(p > 0 && p <= 1, "top_p: p must be in (0, 1], is ", p);
  Tensor y = empty_like(prob);
  dispatch(prob, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::top_p<T>(dev, y.ptr<T>(), prob.ptr<T>(), rows, prob.dim(-1), p);
  });
  claim("top_p", {prob, y});
  return y;
}

}  // namespace addp
