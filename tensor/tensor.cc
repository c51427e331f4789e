// Tensor construction, views and copies. Computation is left to the kernels.
#include "tensor/tensor.h"

#include <cstring>
#include <limits>

#include "cuda/memory_pool.h"
#include "tensor/allocator.h"
#include "tensor/dispatch.h"

namespace addp {

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int64_t extent : *this) {
    check(extent >= 0, "shape: negative extent in ", *this);
    check(!__builtin_mul_overflow(n, extent, &n), "shape: too many elements in ", *this);
  }
  return n;
}

int64_t Shape::dim(int64_t axis) const {
  const int64_t rank = static_cast<int64_t>(size());
  check(axis >= -rank && axis < rank, "shape: no axis ", axis, " in ", *this);
  return (*this)[axis < 0 ? axis + rank : axis];
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << "[";
  for (size_t i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
  return out << "]";
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::i64:
      return "i64";
    case DType::u8:
      return "u8";
  }
  return "?";
}

int64_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 4;
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::u8:
      return 1;
  }
  return 0;
}

Storage::Storage(int64_t bytes, Device device) : bytes(bytes), device(device) {
  data = device == Device::cuda ? device_allocate(bytes) : allocate(bytes);
}

Storage::~Storage() {
  if (device == Device::cuda) device_deallocate(data, bytes);
  else deallocate(data, bytes);
}

Tensor::Tensor(Shape shape, Options options) : shape_(std::move(shape)), numel_(shape_.numel()), options_(options) {
  check(numel_ <= std::numeric_limits<int64_t>::max() / dtype_size(options.dtype), "tensor: too many bytes in ",
        shape_);
  storage_ = std::make_shared<Storage>(bytes(), options.device);
}

Tensor Tensor::reshape(Shape shape) const {
  int64_t known = 1, unknown = -1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == -1) {
      check(unknown < 0, "reshape: more than one -1 in ", shape);
      unknown = static_cast<int64_t>(i);
    } else {
      known *= shape[i];
    }
  }
  if (unknown >= 0) {
    check(known > 0 && numel_ % known == 0, "reshape: ", shape_, " does not fit ", shape);
    shape[unknown] = numel_ / known;
  }
  check(shape.numel() == numel_, "reshape: ", shape_, " has ", numel_, " elements, ", shape, " has ", shape.numel());
  Tensor y = *this;
  y.shape_ = std::move(shape);
  return y;
}

Tensor Tensor::view(int64_t begin, Shape shape) const {
  const int64_t n = shape.numel();
  check(begin >= 0 && n <= numel_ && begin <= numel_ - n, "view: ", shape, " at ", begin, " is outside ", shape_);
  Tensor y = *this;
  y.shape_ = std::move(shape);
  y.numel_ = n;
  y.offset_ += begin * dtype_size(dtype());
  return y;
}

Tensor Tensor::outline() const {
  Tensor y = *this;
  y.storage_.reset();
  return y;
}

double Tensor::item() const {
  check(numel_ == 1, "item: expected one element, shape is ", shape_);
  return to_vector<double>(*this)[0];
}

Tensor empty(Shape shape, Options options) { return Tensor(std::move(shape), options); }
Tensor empty(Shape shape, const Tensor& like) { return Tensor(std::move(shape), like.options()); }
Tensor empty_like(const Tensor& like) { return Tensor(like.shape(), like.options()); }

Tensor full(Shape shape, double value, Options options) {
  Tensor y(std::move(shape), options);
  fill(y, value);
  return y;
}

Tensor zeros(Shape shape, Options options) { return full(std::move(shape), 0, options); }
Tensor zeros_like(const Tensor& like) { return full(like.shape(), 0, like.options()); }
Tensor ones(Shape shape, Options options) { return full(std::move(shape), 1, options); }

template <class T>
Tensor from_vector(const std::vector<T>& values, Shape shape, Options options) {
  Tensor host(std::move(shape), {dtype_of<T>(), Device::cpu});
  check(host.numel() == static_cast<int64_t>(values.size()), "from_vector: ", values.size(), " values for shape ",
        host.shape());
  if (host.numel()) std::memcpy(host.raw(), values.data(), host.bytes());
  return to(host, options);
}

template <class T>
std::vector<T> to_vector(const Tensor& x) {
  const Tensor host = to(x, {dtype_of<T>(), Device::cpu});
  const T* data = host.template ptr<T>();
  return std::vector<T>(data, data + host.numel());
}

template Tensor from_vector(const std::vector<float>&, Shape, Options);
template Tensor from_vector(const std::vector<double>&, Shape, Options);
template Tensor from_vector(const std::vector<int64_t>&, Shape, Options);
template Tensor from_vector(const std::vector<uint8_t>&, Shape, Options);
template std::vector<float> to_vector(const Tensor&);
template std::vector<double> to_vector(const Tensor&);
template std::vector<int64_t> to_vector(const Tensor&);
template std::vector<uint8_t> to_vector(const Tensor&);

// Between the host and the device; other dtypes are converted on the host.
static void copy_across(const Tensor& dst, const Tensor& src) {
  if (dst.device() == Device::cuda) {
    const Tensor host = to(src, {dst.dtype(), Device::cpu});
    copy_to_device(current_cuda(), dst.raw(), host.raw(), host.bytes());
    return;
  }
  const Tensor host = src.dtype() == dst.dtype() ? dst : empty(src.shape(), {src.dtype(), Device::cpu});
  copy_to_host(current_cuda(), host.raw(), src.raw(), src.bytes());
  if (src.dtype() != dst.dtype()) copy_into(dst, host);
}

void copy_into(const Tensor& dst, const Tensor& src) {
  check(dst.shape() == src.shape(), "copy_into: destination is ", dst.shape(), ", source is ", src.shape());
  if (src.numel() == 0) return;
  if (dst.device() != src.device()) return copy_across(dst, src);
  dispatch_any(dst, [&](auto dev, auto to) {
    using To = decltype(to);
    if (dst.dtype() == src.dtype()) {
      return kernel::copy_blocks<To>(dev, dst.ptr<To>(), 0, src.ptr<To>(), 0, src.numel(), 1);
    }
    dispatch_any(src, [&](auto, auto from) {
      using From = decltype(from);
      kernel::convert<To, From>(dev, dst.ptr<To>(), src.ptr<From>(), src.numel());
    });
  });
}

Tensor clone(const Tensor& x) {
  Tensor y = empty_like(x);
  copy_into(y, x);
  return y;
}

Tensor to(const Tensor& x, Options options) {
  check(x.defined(), "to: undefined tensor");
  if (x.dtype() == options.dtype && x.device() == options.device) return x;
  Tensor y = empty(x.shape(), options);
  copy_into(y, x);
  return y;
}

void fill(const Tensor& x, double value) {
  dispatch_any(x, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::fill<T>(dev, x.ptr<T>(), x.numel(), value);
  });
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const Tensor x = to(a, {a.dtype(), Device::cpu}), y = to(b, {b.dtype(), Device::cpu});
  return x.numel() == 0 || std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
}

bool all_finite(const Tensor& x) {
  Tensor flag = empty({}, {DType::i64, x.device()});
  dispatch(x, [&](auto dev, auto t) {
    using T = decltype(t);
    kernel::all_finite<T>(dev, flag.ptr<int64_t>(), x.ptr<T>(), x.numel());
  });
  return flag.item() != 0;
}

}  // namespace addp
