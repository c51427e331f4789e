// Tensor: a contiguous row-major array with a runtime type, on a device, in shared storage.
// Copying a Tensor shares the data; `clone` copies it. No arithmetic here: kernels.h declares the computations,
// autograd/ops.h the differentiable ones.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/error.h"
#include "tensor/shape.h"

namespace addp {

enum class DType { f32, f64, i64, u8 };
const char* dtype_name(DType dtype);
int64_t dtype_size(DType dtype);  // bytes of one element

template <class T>
constexpr DType dtype_of();
// clang-format off
template <> constexpr DType dtype_of<float>() { return DType::f32; }
template <> constexpr DType dtype_of<double>() { return DType::f64; }
template <> constexpr DType dtype_of<int64_t>() { return DType::i64; }
template <> constexpr DType dtype_of<uint8_t>() { return DType::u8; }
// clang-format on

enum class Device { cpu, cuda };

// What a new tensor is made of; the last argument of every module's constructor.
struct Options {
  DType dtype = DType::f32;
  Device device = Device::cpu;
};

// A block of memory of one device; owned by the tensors that share it.
struct Storage {
  Storage(int64_t bytes, Device device);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data = nullptr;
  int64_t bytes = 0;
  Device device = Device::cpu;
};

class Tensor {
 public:
  Tensor() = default;  // undefined: no storage
  // Uninitialised memory of the given shape.
  Tensor(Shape shape, Options options);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int64_t axis) const { return shape_.dim(axis); }
  int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
  int64_t numel() const { return numel_; }
  int64_t bytes() const { return numel_ * dtype_size(options_.dtype); }
  DType dtype() const { return options_.dtype; }
  Device device() const { return options_.device; }
  Options options() const { return options_; }

  // Typed pointer to the first element (device memory when device() is not cpu). Throws when T is not the dtype.
  template <class T>
  T* ptr() const {
    check(defined(), "tensor: undefined tensor used");
    check(dtype_of<T>() == dtype(), "tensor: is ", dtype_name(dtype()), ", was read as ", dtype_name(dtype_of<T>()));
    return reinterpret_cast<T*>(raw());
  }
  void* raw() const { return static_cast<char*>(storage_->data) + offset_; }

  // Same data, other shape; one extent may be -1 (deduced). Throws when the number of elements differs.
  Tensor reshape(Shape shape) const;
  // `count` elements from element `begin` on, as a view of this storage with the given shape.
  Tensor view(int64_t begin, Shape shape) const;
  // True when no other tensor shares the storage, so that it may be overwritten.
  bool unique() const { return storage_.use_count() == 1; }
  // Shape and options alone; undefined, and holds no memory.
  Tensor outline() const;

  // The single element as a double (any dtype, any device). Throws unless numel() is 1.
  double item() const;

 private:
  Shape shape_;
  int64_t numel_ = 0;
  int64_t offset_ = 0;  // bytes
  Options options_;
  std::shared_ptr<Storage> storage_;
};

Tensor empty(Shape shape, Options options = {});
Tensor empty(Shape shape, const Tensor& like);  // dtype and device of `like`
Tensor empty_like(const Tensor& like);
Tensor full(Shape shape, double value, Options options = {});
Tensor zeros(Shape shape, Options options = {});
Tensor zeros_like(const Tensor& like);
Tensor ones(Shape shape, Options options = {});

// Host values to a tensor (T is float, double, int64_t or uint8_t) and back (converted element by element).
template <class T>
Tensor from_vector(const std::vector<T>& values, Shape shape, Options options = {dtype_of<T>(), Device::cpu});
template <class T>
std::vector<T> to_vector(const Tensor& x);

Tensor clone(const Tensor& x);
// Same values in another dtype and/or on another device; shares the data when nothing changes.
Tensor to(const Tensor& x, Options options);
// dst[:] = src, same shape; dtypes and devices may differ.
void copy_into(const Tensor& dst, const Tensor& src);
void fill(const Tensor& x, double value);
// True when shape, dtype and every byte agree.
bool same_bits(const Tensor& a, const Tensor& b);
// True when no element is NaN or infinite.
bool all_finite(const Tensor& x);

}  // namespace addp
