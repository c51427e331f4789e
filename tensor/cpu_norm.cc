// Normalisation on the CPU: layer norm, group norm (with SiLU), batch norm, unit norm.
// All share x^ = (x - mean) rstd over some set of n elements. With g = dL/dx^ the gradient is
//   dx = rstd (g - mean(g) - x^ mean(g x^)),
// because mean and rstd depend on x: dmean/dx = 1 / n, drstd/dx = -rstd^2 x^ / n.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "tensor/cpu_math.h"
#include "tensor/cpu_moments.h"
#include "tensor/dispatch.h"
#include "tensor/parallel.h"

namespace addp::kernel {

using cpu::for_vectors;
using cpu::keep;
using cpu::kPiece;
using cpu::load;
using cpu::Moments;
using cpu::moments;
using cpu::store;
using cpu::sum_lanes;
using cpu::Vec;

namespace {

// Two sums that belong together, of g and of g x^.
struct Sums {
  double g = 0, gx = 0;
};

// y[i] = sum over p of partial[p * stride + i], in double, p in order.
template <class T>
void add_partials(T* y, const T* partial, int64_t parts, int64_t n, int64_t stride) {
  constexpr int64_t kBlock = 64;
  parallel_ranges(n, std::max(kBlock, cpu::row_grain(parts)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kBlock) {
      double total[kBlock] = {};
      const int64_t count = std::min(kBlock, end - i);
      for (int64_t p = 0; p < parts; ++p) {
        for (int64_t j = 0; j < count; ++j) total[j] += partial[p * stride + i + j];
      }
      for (int64_t j = 0; j < count; ++j) y[i + j] = static_cast<T>(total[j]);
    }
  });
}

}  // namespace

// ---- Layer norm

template <class T>
void layer_norm_fwd(Cpu, T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t N, int64_t D,
                    double eps) {
  using V = Vec<T>;
  parallel_ranges(N, cpu::row_grain(D), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* xr = x + r * D;
      T* yr = y + r * D;
      V s{};
      for_vectors<T>(D, [&](int64_t i, auto lanes) { s += load<T>(xr + i, lanes); });
      const T m = sum_lanes<T>(s) / static_cast<T>(D);
      V ss{};
      for_vectors<T>(D, [&](int64_t i, auto lanes) {
        const V d = keep<T>(load<T>(xr + i, lanes) - m, lanes);
        ss += d * d;
      });
      const T rs = static_cast<T>(1 / std::sqrt(double(sum_lanes<T>(ss)) / double(D) + eps));
      for_vectors<T>(D, [&](int64_t i, auto lanes) {
        const V normal = (load<T>(xr + i, lanes) - m) * rs;
        store<T>(yr + i, lanes, normal * load<T>(weight + i, lanes) + load<T>(bias + i, lanes));
      });
      mean[r] = m;
      rstd[r] = rs;
    }
  });
}

// g = dy weight; dweight = sum over rows of dy x^, dbias = sum over rows of dy.
template <class T>
void layer_norm_bwd(Cpu, T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
                    const T* rstd, int64_t N, int64_t D) {
  using V = Vec<T>;
  // Each chunk of rows has its own partial dweight, dbias.
  const int64_t grain = std::max<int64_t>(8, cpu::row_grain(D)), chunks = (N + grain - 1) / grain;
  const auto partial = std::make_unique_for_overwrite<T[]>(static_cast<size_t>(chunks * 2 * D));
  parallel_ranges(N, grain, [&](int64_t begin, int64_t end) {
    T *dw = partial.get() + begin / grain * 2 * D, *db = dw + D;
    std::fill_n(dw, 2 * D, T(0));
    for (int64_t r = begin; r < end; ++r) {
      const T *xr = x + r * D, *dyr = dy + r * D, m = mean[r], rs = rstd[r];
      V g_sum{}, gx_sum{};
      for_vectors<T>(D, [&](int64_t i, auto lanes) {
        const V normal = (load<T>(xr + i, lanes) - m) * rs, d = load<T>(dyr + i, lanes);
        cpu::ask_to_read(xr + i, std::max(D, cpu::kAhead));
        cpu::ask_to_read(dyr + i, std::max(D, cpu::kAhead));
        const V g = d * load<T>(weight + i, lanes);
        g_sum += g;
        gx_sum += g * normal;
        store<T>(dw + i, lanes, load<T>(dw + i, lanes) + d * normal);
        store<T>(db + i, lanes, load<T>(db + i, lanes) + d);
      });
      const T g_mean = sum_lanes<T>(g_sum) / static_cast<T>(D), gx_mean = sum_lanes<T>(gx_sum) / static_cast<T>(D);
      for_vectors<T>(D, [&](int64_t i, auto lanes) {
        const V normal = (load<T>(xr + i, lanes) - m) * rs;
        const V g = load<T>(dyr + i, lanes) * load<T>(weight + i, lanes);
        store<T>(dx + r * D + i, lanes, rs * (g - g_mean - normal * gx_mean));
      });
    }
  });
  add_partials(dweight, partial.get(), chunks, D, 2 * D);
  add_partials(dbias, partial.get() + D, chunks, D, 2 * D);
}

// ---- Group norm: one task per image and group

template <class T>
void group_norm_fwd(Cpu, T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t B, int64_t C,
                    int64_t S, int64_t G, double eps, bool silu) {
  using V = Vec<T>;
  const int64_t channels = C / G, n = channels * S, ahead = std::min(n, kPiece);
  parallel_ranges(B * G, cpu::row_grain(n), [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const T* xg = x + group * n;
      const Moments of_x = moments(xg, n);
      const double m = of_x.mean, rs = 1 / std::sqrt(of_x.squares / double(n) + eps);
      mean[group] = static_cast<T>(m);
      rstd[group] = static_cast<T>(rs);
      for (int64_t k = 0; k < channels; ++k) {
        const int64_t c = group % G * channels + k;
        const T scale = static_cast<T>(rs * weight[c]), center = static_cast<T>(m), shift = bias[c];
        const T* xc = xg + k * S;
        T* yc = y + group * n + k * S;
        for_vectors<T>(S, [&](int64_t i, auto lanes) {
          const V z = (load<T>(xc + i, lanes) - center) * scale + shift;
          store<T>(yc + i, lanes, silu ? cpu::silu(z) : z);
          cpu::ask_to_read(xc + i, ahead);
          cpu::ask_to_write(yc + i, ahead);
        });
      }
    }
  });
}

// dz = dy, or dy silu'(z) with z = x^ weight + bias; then as above with g = dz weight. dz waits in dx.
template <class T>
void group_norm_bwd(Cpu, T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* bias,
                    const T* mean, const T* rstd, int64_t B, int64_t C, int64_t S, int64_t G, bool silu) {
  using V = Vec<T>;
  const int64_t channels = C / G, n = channels * S;
  std::vector<Sums> sums(B * C);  // of dz and dz x^, per image and channel
  parallel_ranges(B * G, cpu::row_grain(n), [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const T m = mean[group], rs = rstd[group];
      double g_sum = 0, gx_sum = 0;
      for (int64_t k = 0; k < channels; ++k) {
        const int64_t c = group % G * channels + k, at = group * n + k * S;
        Sums& sum = sums[group * channels + k];
        for (int64_t piece = 0; piece < S; piece += kPiece) {
          V dz_sum{}, dzx_sum{};
          for_vectors<T>(std::min(kPiece, S - piece), [&](int64_t i, auto lanes) {
            const int64_t j = at + piece + i;
            const V normal = (load<T>(x + j, lanes) - m) * rs;
            V dz = load<T>(dy + j, lanes);
            if (silu) dz *= cpu::silu_derivative(normal * weight[c] + bias[c]);
            store<T>(dx + j, lanes, dz);
            dz_sum += keep<T>(dz, lanes);
            dzx_sum += keep<T>(dz * normal, lanes);
          });
          sum.g += sum_lanes<T>(dz_sum);
          sum.gx += sum_lanes<T>(dzx_sum);
        }
        g_sum += sum.g * weight[c];
        gx_sum += sum.gx * weight[c];
      }
      const T g_mean = static_cast<T>(g_sum / double(n)), gx_mean = static_cast<T>(gx_sum / double(n));
      for (int64_t k = 0; k < channels; ++k) {
        const T w = weight[group % G * channels + k];
        const int64_t at = group * n + k * S;
        for_vectors<T>(S, [&](int64_t i, auto lanes) {
          const V normal = (load<T>(x + at + i, lanes) - m) * rs, g = load<T>(dx + at + i, lanes) * w;
          store<T>(dx + at + i, lanes, rs * (g - g_mean - normal * gx_mean));
        });
      }
    }
  });
  for (int64_t c = 0; c < C; ++c) {
    Sums total;
    for (int64_t b = 0; b < B; ++b) {
      total.g += sums[b * C + c].g;
      total.gx += sums[b * C + c].gx;
    }
    dbias[c] = static_cast<T>(total.g);
    dweight[c] = static_cast<T>(total.gx);
  }
}

// ---- Batch norm: one task per channel

// Without space (S = 1, rows of features) a channel is a column: it is read row by row beside its neighbours.
template <class T>
void column_moments(T* mean, T* var, const T* x, int64_t B, int64_t C) {
  constexpr int64_t kColumns = 64;
  parallel_ranges(C, kColumns, [&](int64_t begin, int64_t end) {
    double center[kColumns] = {}, squares[kColumns] = {};
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t c = begin; c < end; ++c) center[c - begin] += x[b * C + c];
    }
    for (double& sum : center) sum /= double(B);
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t c = begin; c < end; ++c) {
        const double deviation = x[b * C + c] - center[c - begin];
        squares[c - begin] += deviation * deviation;
      }
    }
    for (int64_t c = begin; c < end; ++c) {
      mean[c] = static_cast<T>(center[c - begin]);
      var[c] = static_cast<T>(squares[c - begin] / double(B));
    }
  });
}

template <class T>
void channel_moments(Cpu, T* mean, T* var, const T* x, int64_t B, int64_t C, int64_t S) {
  if (S == 1) return column_moments(mean, var, x, B, C);
  parallel_ranges(C, cpu::row_grain(B * S), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      Moments all;
      for (int64_t b = 0; b < B; ++b) all.add(moments(x + (b * C + c) * S, S));
      mean[c] = static_cast<T>(all.mean);
      var[c] = static_cast<T>(all.squares / all.n);
    }
  });
}

// The division and the root are done once a channel.
template <class T>
void batch_norm_fwd(Cpu, T* y, const T* x, const T* mean, const T* var, const T* weight, const T* bias, int64_t B,
                    int64_t C, int64_t S, double eps) {
  std::vector<T> scale(static_cast<size_t>(C)), shift(static_cast<size_t>(C));
  for (int64_t c = 0; c < C; ++c) {
    scale[c] = static_cast<T>((weight ? double(weight[c]) : 1.0) / std::sqrt(double(var[c]) + eps));
    shift[c] = bias ? bias[c] : T(0);
  }
  if (S == 1) {
    parallel_ranges(B, cpu::row_grain(C), [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        for (int64_t c = 0; c < C; ++c) y[b * C + c] = (x[b * C + c] - mean[c]) * scale[c] + shift[c];
      }
    });
    return;
  }
  parallel_ranges(B * C, cpu::row_grain(S), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t c = plane % C;
      for (int64_t i = plane * S; i < (plane + 1) * S; ++i) y[i] = (x[i] - mean[c]) * scale[c] + shift[c];
    }
  });
}

template <class T>
void batch_norm_bwd(Cpu, T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* mean, const T* var,
                    const T* weight, int64_t B, int64_t C, int64_t S, double eps, bool batch_moments) {
  using V = Vec<T>;
  const double n = double(B) * double(S);
  parallel_ranges(C, cpu::row_grain(B * S), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const T m = mean[c], rs = static_cast<T>(1 / std::sqrt(double(var[c]) + eps));
      Sums sum;
      for (int64_t b = 0; b < B; ++b) {
        const int64_t at = (b * C + c) * S;
        for (int64_t piece = 0; piece < S; piece += kPiece) {
          V g_sum{}, gx_sum{};
          for_vectors<T>(std::min(kPiece, S - piece), [&](int64_t i, auto lanes) {
            const V d = load<T>(dy + at + piece + i, lanes);
            g_sum += d;
            gx_sum += d * ((load<T>(x + at + piece + i, lanes) - m) * rs);
          });
          sum.g += sum_lanes<T>(g_sum);
          sum.gx += sum_lanes<T>(gx_sum);
        }
      }
      if (dweight) dweight[c] = static_cast<T>(sum.gx);
      if (dbias) dbias[c] = static_cast<T>(sum.g);
      const T scale = weight ? weight[c] * rs : rs;
      const T g_mean = batch_moments ? static_cast<T>(sum.g / n) : T(0);
      const T gx_mean = batch_moments ? static_cast<T>(sum.gx / n) : T(0);
      for (int64_t b = 0; b < B; ++b) {
        const int64_t at = (b * C + c) * S;
        for (int64_t i = at; i < at + S; ++i) dx[i] = scale * (dy[i] - g_mean - (x[i] - m) * rs * gx_mean);
      }
    }
  });
}

// ---- Unit norm: y = x / (r + eps), r the norm of x over the middle axis

namespace {

// Calls f(o, i) for columns i, i + 1 ... of slice o: f handles `kColumns` of them at most.
constexpr int64_t kColumns = 64;

template <class F>
void for_columns(int64_t outer, int64_t n, int64_t inner, F&& f) {
  const int64_t blocks = (inner + kColumns - 1) / kColumns;
  parallel_ranges(outer * blocks, cpu::row_grain(n * std::min(inner, kColumns)), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * kColumns;
      f(task / blocks, first, std::min(kColumns, inner - first));
    }
  });
}

}  // namespace

template <class T>
void unit_norm_fwd(Cpu, T* y, T* norm, const T* x, int64_t outer, int64_t n, int64_t inner, double eps) {
  for_columns(outer, n, inner, [&](int64_t o, int64_t first, int64_t count) {
    const int64_t at = o * n * inner + first;
    double squares[kColumns] = {};
    if (inner == 1) {
      squares[0] = cpu::sum_double(x + at, n, [](cpu::VecD v) { return v * v; });
    } else {
      for (int64_t k = 0; k < n; ++k) {
        for (int64_t i = 0; i < count; ++i) squares[i] += double(x[at + k * inner + i]) * double(x[at + k * inner + i]);
      }
    }
    T scale[kColumns];
    for (int64_t i = 0; i < count; ++i) {
      const double r = std::sqrt(squares[i]);
      norm[o * inner + first + i] = static_cast<T>(r);
      scale[i] = static_cast<T>(1 / (r + eps));
    }
    for (int64_t k = 0; k < n; ++k) {
      for (int64_t i = 0; i < count; ++i) y[at + k * inner + i] = x[at + k * inner + i] * scale[i];
    }
  });
}

// dr/dx = x / r, so dx = dy / (r + eps) - x (sum dy x) / (r (r + eps)^2).
template <class T>
void unit_norm_bwd(Cpu, T* dx, const T* dy, const T* x, const T* norm, int64_t outer, int64_t n, int64_t inner,
                   double eps) {
  for_columns(outer, n, inner, [&](int64_t o, int64_t first, int64_t count) {
    const int64_t at = o * n * inner + first;
    double dot[kColumns] = {};
    for (int64_t k = 0; k < n; ++k) {
      for (int64_t i = 0; i < count; ++i) dot[i] += double(dy[at + k * inner + i]) * double(x[at + k * inner + i]);
    }
    T scale[kColumns], pull[kColumns];
    for (int64_t i = 0; i < count; ++i) {
      const double r = norm[o * inner + first + i];
      scale[i] = static_cast<T>(1 / (r + eps));
      pull[i] = static_cast<T>(r > 0 ? dot[i] / (r * (r + eps) * (r + eps)) : 0);
    }
    for (int64_t k = 0; k < n; ++k) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t j = at + k * inner + i;
        dx[j] = dy[j] * scale[i] - x[j] * pull[i];
      }
    }
  });
}

#define ADDP_INSTANTIATE(T)                                                                                          \
  template void layer_norm_fwd(Cpu, T*, T*, T*, const T*, const T*, const T*, int64_t, int64_t, double);             \
  template void layer_norm_bwd(Cpu, T*, T*, T*, const T*, const T*, const T*, const T*, const T*, int64_t, int64_t); \
  template void group_norm_fwd(Cpu, T*, T*, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, int64_t,    \
                               double, bool);                                                                        \
  template void group_norm_bwd(Cpu, T*, T*, T*, const T*, const T*, const T*, const T*, const T*, const T*, int64_t, \
                               int64_t, int64_t, int64_t, bool);                                                     \
  template void channel_moments(Cpu, T*, T*, const T*, int64_t, int64_t, int64_t);                                   \
  template void batch_norm_fwd(Cpu, T*, const T*, const T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, \
                               double);                                                                              \
  template void batch_norm_bwd(Cpu, T*, T*, T*, const T*, const T*, const T*, const T*, const T*, int64_t, int64_t,  \
                               int64_t, double, bool);                                                               \
  template void unit_norm_fwd(Cpu, T*, T*, const T*, int64_t, int64_t, int64_t, double);                             \
  template void unit_norm_bwd(Cpu, T*, const T*, const T*, const T*, int64_t, int64_t, int64_t, double);
ADDP_INSTANTIATE(float)
ADDP_INSTANTIATE(double)

}  // namespace addp::kernel
