// See emulator_faults.h. Each case is a function template: kPlanted chooses the faulty or the right form.
#include "tests/emulator_faults.h"

#include <numeric>

#include "cuda/device.h"

namespace addp {
namespace {

constexpr int64_t kN = 100;  // elements of most arrays: not a multiple of anything

// Device memory holding 0, 1, 2 ... or, on request, left as it came.
template <class T>
class Array {
 public:
  explicit Array(int64_t n, bool filled = true) : n_(n) {
    cuda(cudaMalloc(&data_, bytes()), "cudaMalloc");
    std::vector<T> values(static_cast<size_t>(n));
    std::iota(values.begin(), values.end(), T{0});
    if (filled) cuda(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~Array() {
    try {
      cudaFree(data_);
    } catch (const Error&) {  // a planted fault shows at the free as well
    }
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  size_t bytes() const { return static_cast<size_t>(n_) * sizeof(T); }
  operator T*() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> result(static_cast<size_t>(n_));
    cuda(cudaMemcpy(result.data(), data_, bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return result;
  }

 private:
  int64_t n_;
  T* data_ = nullptr;
};

void finish() { cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

// What a test of the kernel would have said.
template <class T>
void expect(const std::vector<T>& found, T (*right)(int64_t i)) {
  for (size_t i = 0; i < found.size(); ++i)
    check(found[i] == right(static_cast<int64_t>(i)), "wrong values: element ", i, " is ", found[i]);
}
void expect_sum(float found, float right) { check(found == right, "wrong values: ", found, " instead of ", right); }

// ---- Memory ---------------------------------------------------------------------------------------------------------

// y[i] = 2 x[i] for i in [first, n), and for i = n as well when inclusive.
__global__ __launch_bounds__(128) void twice_kernel(float* y, const float* x, int first, int n, bool inclusive) {
  ADDP_MAX_THREADS(128);
  const int i = first + static_cast<int>(threadIdx.x);
  if (i < n || (inclusive && i == n)) y[i] = 2 * x[i];
}

template <bool kPlanted>
void host_pointer_argument() {
  const Array<float> x(kN), y(kN);
  std::vector<float> host(kN);
  launch(twice_kernel, Dims{1, 128}, y, kPlanted ? host.data() : static_cast<float*>(x), 0, kN, false);
  finish();
}

struct Pair {
  float* y;
  const float* x;
};
__global__ __launch_bounds__(128) void pair_kernel(Pair p, int n) {
  ADDP_MAX_THREADS(128);
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) p.y[i] = p.x[i];
}
template <bool kPlanted>
void host_pointer_in_struct() {
  const Array<float> x(kN), y(kN);
  std::vector<float> host(kN);
  launch(pair_kernel, Dims{1, 128}, Pair{y, kPlanted ? host.data() : static_cast<float*>(x)}, kN);
  finish();
}

template <bool kPlanted>
void freed_argument() {
  const Array<float> y(kN);
  float* x = nullptr;
  cuda(cudaMalloc(&x, kN * sizeof(float)), "cudaMalloc");
  if (kPlanted) cuda(cudaFreeAsync(x, nullptr), "cudaFreeAsync");
  launch(twice_kernel, Dims{1, 128}, y, x, 0, kN, false);
  if (!kPlanted) cuda(cudaFreeAsync(x, nullptr), "cudaFreeAsync");
  finish();
}

template <bool kPlanted>
void freed_twice() {
  float* x = nullptr;
  cuda(cudaMalloc(&x, 4), "cudaMalloc");
  cuda(cudaFree(x), "cudaFree");
  if (kPlanted) cuda(cudaFree(x), "cudaFree");
}

template <bool kPlanted>
void device_pointer_on_host() {
  const Array<float> x(kN);
  const float value = kPlanted ? *static_cast<volatile float*>(static_cast<float*>(x)) : x.values()[0];
  expect_sum(value, 0);
}

template <bool kPlanted>
void write_past_the_end() {
  const Array<float> x(kN + 1), y(kN);
  launch(twice_kernel, Dims{1, 128}, y, x, 0, kN, kPlanted);
  finish();
}

template <bool kPlanted>
void write_before_the_start() {
  const Array<float> x(kN), y(kN);
  launch(twice_kernel, Dims{1, 128}, y, x, kPlanted ? -1 : 0, kN, false);
  finish();
}

__global__ __launch_bounds__(1) void serial_sum_kernel(float* y, const float* x, int n) {
  ADDP_MAX_THREADS(1);
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += x[i];
  *y = sum;
}
template <bool kPlanted>
void read_past_the_end() {
  const Array<float> x(kN), y(1);
  launch(serial_sum_kernel, Dims{1, 1}, y, x, kPlanted ? kN + 1 : kN);
  expect_sum(y.values()[0], kN * (kN - 1) / 2);
}

template <bool kPlanted>
void uninitialised_memory() {
  const Array<float> x(kN, !kPlanted), y(1);
  launch(serial_sum_kernel, Dims{1, 1}, y, x, kN);
  expect_sum(y.values()[0], kN * (kN - 1) / 2);
}

__global__ __launch_bounds__(32) void vector_kernel(float* y, const float* x) {
  ADDP_MAX_THREADS(32);
  reinterpret_cast<float4*>(y)[threadIdx.x] = *reinterpret_cast<const float4*>(x + 4 * threadIdx.x);
}
template <bool kPlanted>
void misaligned_vector() {
  const Array<float> x(65), y(64);
  launch(vector_kernel, Dims{1, 16}, y, x + (kPlanted ? 1 : 0));
  finish();
}

// ---- Shared memory, barriers, races -------------------------------------------------------------------------------

__global__ __launch_bounds__(64) void shared_bounds_kernel(float* y, int n) {
  ADDP_MAX_THREADS(64);
  ADDP_SHARED(float, tile, [64]);
  if (static_cast<int>(threadIdx.x) < n) tile[threadIdx.x + (n - 64)] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}
template <bool kPlanted>
void shared_overflow() {
  const Array<float> y(64);
  launch(shared_bounds_kernel, Dims{1, 64}, y, kPlanted ? 65 : 64);
  finish();
}

__global__ __launch_bounds__(64) void dynamic_bounds_kernel(float* y, int n) {
  ADDP_MAX_THREADS(64);
  ADDP_DYNAMIC_SHARED(float, tile);
  for (int i = static_cast<int>(threadIdx.x); i < n; i += 64) tile[i] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}
template <bool kPlanted>
void dynamic_shared_overflow() {
  const Array<float> y(64);
  launch(dynamic_bounds_kernel, Dims{1, 64, 64 * sizeof(float)}, y, kPlanted ? 65 : 64);
  finish();
}

template <bool kPlanted>
__global__ __launch_bounds__(64) void uninitialised_shared_kernel(float* y) {
  ADDP_MAX_THREADS(64);
  ADDP_SHARED(float, tile, [64]);
  if (!kPlanted || threadIdx.x != 5) tile[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}
template <bool kPlanted>
void uninitialised_shared() {
  const Array<float> y(64);
  launch(uninitialised_shared_kernel<kPlanted>, Dims{1, 64}, y);
  expect<float>(y.values(), [](int64_t i) { return static_cast<float>(i); });
}

// y = x reversed; a barrier separates writing from reading.
template <bool kPlanted>
__global__ __launch_bounds__(128) void reverse_kernel(float* y) {
  ADDP_MAX_THREADS(128);
  ADDP_SHARED(float, tile, [128]);
  tile[threadIdx.x] = y[threadIdx.x];
  if constexpr (!kPlanted) __syncthreads();
  y[threadIdx.x] = tile[127 - threadIdx.x];
}
template <bool kPlanted>
void missing_barrier() {
  const Array<float> y(128);
  launch(reverse_kernel<kPlanted>, Dims{1, 128}, y);
  expect<float>(y.values(), [](int64_t i) { return static_cast<float>(127 - i); });
}

// The tile is used again: a second barrier keeps fast threads from overwriting what slow ones still read.
template <bool kPlanted>
__global__ __launch_bounds__(128) void rounds_kernel(float* y, int rounds) {
  ADDP_MAX_THREADS(128);
  ADDP_SHARED(float, tile, [128]);
  float sum = 0;
  for (int r = 0; r < rounds; ++r) {
    tile[threadIdx.x] = static_cast<float>(r);
    __syncthreads();
    sum += tile[127 - threadIdx.x];
    if constexpr (!kPlanted) __syncthreads();
  }
  y[threadIdx.x] = sum;
}
template <bool kPlanted>
void missing_second_barrier() {
  const Array<float> y(128);
  launch(rounds_kernel<kPlanted>, Dims{1, 128}, y, 3);
  expect<float>(y.values(), [](int64_t) { return 3.0f; });
}

// Lanes pass values through shared memory: __syncwarp orders them, a shuffle would not.
template <bool kPlanted>
__global__ __launch_bounds__(32) void warp_exchange_kernel(float* y) {
  ADDP_MAX_THREADS(32);
  ADDP_SHARED(float, tile, [32]);
  tile[threadIdx.x] = y[threadIdx.x];
  if constexpr (kPlanted) __shfl_sync(~0u, 0, 0);
  else __syncwarp();
  y[threadIdx.x] = tile[threadIdx.x ^ 1];
}
template <bool kPlanted>
void missing_warp_barrier() {
  const Array<float> y(32);
  launch(warp_exchange_kernel<kPlanted>, Dims{1, 32}, y);
  expect<float>(y.values(), [](int64_t i) { return static_cast<float>(i ^ 1); });
}

template <bool kPlanted>
__global__ __launch_bounds__(64) void count_kernel(int* count) {
  ADDP_MAX_THREADS(64);
  if constexpr (kPlanted) *count += 1;
  else atomicAdd(count, 1);
}
template <bool kPlanted>
void missing_atomic() {
  const Array<int> count(1);
  launch(count_kernel<kPlanted>, Dims{4, 64}, count);
  expect<int>(count.values(), [](int64_t) { return 256; });
}

__global__ __launch_bounds__(32) void overlap_kernel(float* y, int width) {
  ADDP_MAX_THREADS(32);
  if (static_cast<int>(threadIdx.x) < width) y[blockIdx.x * 16 + threadIdx.x] = 1;
}
template <bool kPlanted>
void blocks_overlap() {
  const Array<float> y(33);
  launch(overlap_kernel, Dims{2, 32}, y, kPlanted ? 17 : 16);
  finish();
}

__global__ __launch_bounds__(32) void bytes_kernel(unsigned char* y, int step) {
  ADDP_MAX_THREADS(32);
  y[threadIdx.x / step] = 1;
}
template <bool kPlanted>
void bytes_overlap() {
  const Array<unsigned char> y(32);
  launch(bytes_kernel, Dims{1, 32}, y, kPlanted ? 2 : 1);
  finish();
}

// ---- Divergence -----------------------------------------------------------------------------------------------------

__global__ __launch_bounds__(64) void partial_barrier_kernel(int n) {
  ADDP_MAX_THREADS(64);
  if (static_cast<int>(threadIdx.x) < n) __syncthreads();
}
template <bool kPlanted>
void divergent_barrier() {
  launch(partial_barrier_kernel, Dims{1, 64}, kPlanted ? 40 : 64);
  finish();
}

__global__ __launch_bounds__(64) void two_barriers_kernel(int n) {
  ADDP_MAX_THREADS(64);
  if (static_cast<int>(threadIdx.x) < n) __syncthreads();
  else __syncthreads();
}
template <bool kPlanted>
void two_barriers() {
  launch(two_barriers_kernel, Dims{1, 64}, kPlanted ? 32 : 64);
  finish();
}

__global__ __launch_bounds__(32) void partial_shuffle_kernel(int* y, int n, unsigned mask) {
  ADDP_MAX_THREADS(32);
  const int lane = static_cast<int>(threadIdx.x);
  int value = lane;
  if (lane < n) value = __shfl_xor_sync(mask, value, 1);
  __syncwarp();
  y[lane] = value;
}
template <bool kPlanted>
void divergent_shuffle() {
  const Array<int> y(32);
  launch(partial_shuffle_kernel, Dims{1, 32}, y, 16, kPlanted ? ~0u : 0xFFFFu);
  finish();
}
template <bool kPlanted>
void shuffle_outside_mask() {
  const Array<int> y(32);
  launch(partial_shuffle_kernel, Dims{1, 32}, y, 16, kPlanted ? 0xFFu : 0xFFFFu);
  finish();
}

__global__ __launch_bounds__(32) void absent_lane_kernel(int* y, int source) {
  ADDP_MAX_THREADS(32);
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xFFFFu, static_cast<int>(threadIdx.x), source);
}
template <bool kPlanted>
void shuffle_from_absent_lane() {
  const Array<int> y(32);
  launch(absent_lane_kernel, Dims{1, 32}, y, kPlanted ? 20 : 3);
  finish();
}

// ---- Launches -------------------------------------------------------------------------------------------------------

__global__ __launch_bounds__(1024) void idle_kernel() { ADDP_MAX_THREADS(1024); }
__global__ __launch_bounds__(64) void narrow_kernel() { ADDP_MAX_THREADS(64); }

template <bool kPlanted>
void empty_grid() {
  launch(idle_kernel, Dims{kPlanted ? 0 : 1, 32});
  finish();
}
template <bool kPlanted>
void large_grid() {
  launch(idle_kernel, Dims{dim3(1, kPlanted ? 65536 : 1000), 1});
  finish();
}
template <bool kPlanted>
void large_block() {
  launch(idle_kernel, Dims{1, dim3(32, kPlanted ? 33 : 32)});
  finish();
}
template <bool kPlanted>
void above_launch_bounds() {
  launch(narrow_kernel, Dims{1, kPlanted ? 65 : 64});
  finish();
}
template <bool kPlanted>
void large_dynamic_shared() {
  launch(idle_kernel, Dims{1, 32, size_t{48 << 10} + (kPlanted ? 1 : 0)});
  finish();
}
template <int kBytes>
__global__ __launch_bounds__(32) void large_shared_kernel() {
  ADDP_MAX_THREADS(32);
  ADDP_SHARED(char, tile, [kBytes]);
  tile[threadIdx.x] = 0;
}
template <bool kPlanted>
void large_static_shared() {
  launch(large_shared_kernel<(48 << 10) + (kPlanted ? 1 : 0)>, Dims{1, 32});
  finish();
}

// ---- Copies and streams ---------------------------------------------------------------------------------------------

template <bool kPlanted>
void copy_direction() {
  const Array<float> x(kN);
  std::vector<float> host(kN);
  cuda(cudaMemcpy(host.data(), x, x.bytes(), kPlanted ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost), "cudaMemcpy");
}
template <bool kPlanted>
void copy_length() {
  const Array<float> x(kN);
  std::vector<float> host(kN + 1);
  cuda(cudaMemcpy(x, host.data(), x.bytes() + (kPlanted ? 4 : 0), cudaMemcpyHostToDevice), "cudaMemcpy");
}
template <bool kPlanted>
void fill_length() {
  const Array<float> x(kN);
  cuda(cudaMemset(x, 0, x.bytes() + (kPlanted ? 1 : 0)), "cudaMemset");
  finish();
}

template <bool kPlanted>
void missing_synchronisation() {
  const Array<float> x(kN), y(kN);
  float* host = nullptr;
  cuda(cudaMallocHost(reinterpret_cast<void**>(&host), y.bytes()), "cudaMallocHost");
  host[1] = -1;
  launch(twice_kernel, Dims{1, 128}, y, x, 0, kN, false);
  cuda(cudaMemcpyAsync(host, y, y.bytes(), cudaMemcpyDeviceToHost), "cudaMemcpyAsync");
  if (!kPlanted) finish();
  const float value = host[1];
  finish();
  cuda(cudaFreeHost(host), "cudaFreeHost");
  expect_sum(value, 2);
}

template <bool kPlanted>
void missing_event() {
  const Array<float> x(kN), y(kN, false), z(kN);
  cudaStream_t first{}, second{};
  cudaEvent_t done{};
  cuda(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking), "cudaStreamCreate");
  cuda(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking), "cudaStreamCreate");
  cuda(cudaEventCreate(&done), "cudaEventCreate");
  launch(twice_kernel, Dims{1, 128, 0, first}, y, x, 0, kN, false);
  cuda(cudaEventRecord(done, first), "cudaEventRecord");
  if (!kPlanted) cuda(cudaStreamWaitEvent(second, done), "cudaStreamWaitEvent");
  launch(twice_kernel, Dims{1, 128, 0, second}, z, y, 0, kN, false);
  cuda(cudaStreamSynchronize(second), "cudaStreamSynchronize");
  const std::vector<float> values = z.values();
  finish();
  expect<float>(values, [](int64_t i) { return 4 * static_cast<float>(i); });
}

// ---- cuBLAS ---------------------------------------------------------------------------------------------------------

// C = A B with A: 3 x 4, B: 4 x 2, column-major; leading dimensions as given.
void multiply(int lda, int ldb, int ldc, const float* A, int64_t c_elements = 6) {
  const Array<float> B(8), C(c_elements);
  cublasHandle_t handle{};
  cublas(cublasCreate(&handle), "cublasCreate");
  const float one = 1, zero = 0;
  cublas(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 3, 2, 4, &one, A, lda, B, ldb, &zero, C, ldc), "cublasSgemm");
  const std::vector<float> c = C.values();
  cublas(cublasDestroy(handle), "cublasDestroy");
  expect_sum(c[0], 42);  // 0*0 + 3*1 + 6*2 + 9*3
}
template <bool kPlanted>
void small_leading_dimension() {
  multiply(kPlanted ? 2 : 3, 4, 3, Array<float>(12));
}
template <bool kPlanted>
void large_leading_dimension() {
  multiply(kPlanted ? 4 : 3, 4, 3, Array<float>(12));
}
template <bool kPlanted>
void small_result() {
  multiply(3, 4, 3, Array<float>(12), kPlanted ? 5 : 6);
}
template <bool kPlanted>
void host_matrix() {
  const Array<float> A(12);
  std::vector<float> host = A.values();
  multiply(3, 4, 3, kPlanted ? host.data() : static_cast<float*>(A));
}

}  // namespace

#define ADDP_FAULT(name) name<true>, name<false>
const std::vector<PlantedFault>& planted_faults() {
  static const std::vector<PlantedFault> faults{
      {"host pointer as an argument", kAll, "is a host pointer", ADDP_FAULT(host_pointer_argument)},
      {"host pointer inside a struct", kRace, "host memory", ADDP_FAULT(host_pointer_in_struct)},
      {"freed memory as an argument", kAll, "freed", ADDP_FAULT(freed_argument)},
      {"memory freed twice", kAll, "not the start of a live device allocation", ADDP_FAULT(freed_twice)},
      {"device pointer on the host", kAll, "host code touched device memory", ADDP_FAULT(device_pointer_on_host)},
      {"write past the end", kAll, "past the end|AddressSanitizer|out of bounds", ADDP_FAULT(write_past_the_end)},
      {"write before the start", kAll, "before the start|AddressSanitizer|out of bounds",
       ADDP_FAULT(write_before_the_start)},
      {"read past the end", kAll, "wrong values|AddressSanitizer|out of bounds", ADDP_FAULT(read_past_the_end)},
      {"uninitialised memory", kAll, "wrong values", ADDP_FAULT(uninitialised_memory)},
      {"misaligned vector", kAll, "misaligned", ADDP_FAULT(misaligned_vector)},
      {"shared array overflow", kAll, "shared arrays|AddressSanitizer|out of bounds", ADDP_FAULT(shared_overflow)},
      {"dynamic shared overflow", kAll, "shared arrays|AddressSanitizer", ADDP_FAULT(dynamic_shared_overflow)},
      {"uninitialised shared memory", kAll, "wrong values", ADDP_FAULT(uninitialised_shared)},
      {"missing barrier", kAll, "wrong values|data race on shared", ADDP_FAULT(missing_barrier)},
      {"missing second barrier", kAll, "wrong values|data race on shared", ADDP_FAULT(missing_second_barrier)},
      {"missing warp barrier", kRace, "data race on shared", ADDP_FAULT(missing_warp_barrier)},
      {"missing atomic", kRace, "data race on global", ADDP_FAULT(missing_atomic)},
      {"blocks that overlap", kRace, "data race on global", ADDP_FAULT(blocks_overlap)},
      {"bytes that overlap", kRace, "data race on global", ADDP_FAULT(bytes_overlap)},
      {"barrier for some threads", kAll, "divergent barrier", ADDP_FAULT(divergent_barrier)},
      {"two barriers at once", kAll, "divergent barrier", ADDP_FAULT(two_barriers)},
      {"shuffle for some lanes of its mask", kAll, "divergent warp|deadlock", ADDP_FAULT(divergent_shuffle)},
      {"shuffle outside its mask", kAll, "leaves out the calling lane", ADDP_FAULT(shuffle_outside_mask)},
      {"shuffle from an absent lane", kAll, "does not take part", ADDP_FAULT(shuffle_from_absent_lane)},
      {"empty grid", kAll, "bad launch configuration", ADDP_FAULT(empty_grid)},
      {"grid too large", kAll, "bad launch configuration", ADDP_FAULT(large_grid)},
      {"block too large", kAll, "bad launch configuration", ADDP_FAULT(large_block)},
      {"block above launch bounds", kAll, "__launch_bounds__(64)", ADDP_FAULT(above_launch_bounds)},
      {"too much dynamic shared memory", kAll, "dynamic shared memory", ADDP_FAULT(large_dynamic_shared)},
      {"too much static shared memory", kAll, "more than a block may have", ADDP_FAULT(large_static_shared)},
      {"copy in the wrong direction", kAll, "direction HostToDevice", ADDP_FAULT(copy_direction)},
      {"copy that is too long", kAll, "fewer than 404 bytes", ADDP_FAULT(copy_length)},
      {"fill that is too long", kAll, "not inside one live device allocation", ADDP_FAULT(fill_length)},
      {"missing synchronisation", kAll, "wrong values", ADDP_FAULT(missing_synchronisation)},
      {"missing event wait", kAll, "wrong values", ADDP_FAULT(missing_event)},
      {"leading dimension too small", kAll, "cublasSgemm", ADDP_FAULT(small_leading_dimension)},
      {"leading dimension too large", kAll, "matrix A", ADDP_FAULT(large_leading_dimension)},
      {"product larger than its memory", kAll, "matrix C", ADDP_FAULT(small_result)},
      {"host matrix to cuBLAS", kAll, "matrix A", ADDP_FAULT(host_matrix)},
  };
  return faults;
}
#undef ADDP_FAULT

}  // namespace addp
