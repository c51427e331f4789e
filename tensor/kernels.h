// The whole contract of both backends: every kernel, once, with its shapes. dispatch.h reads this file for each device
// tag in turn (DEVICE stands for Cpu, then for Cuda), so it has no include guard; include dispatch.h instead.
// Unless said otherwise T is float or double, arrays are dense and row-major, outputs are overwritten, outputs and
// inputs do not overlap, and gradients are named dx for x. A kernel never allocates its results.

// A kernel is one line.
// clang-format off

// ---- Memory (T also int64_t, uint8_t) -------------------------------------------------------------------------------
template <class T> void fill(DEVICE, T* y, int64_t n, double value);
template <class To, class From> void convert(DEVICE, To* y, const From* x, int64_t n);
// y[i * y_stride .. + block) = x[i * x_stride .. + block) for i < count. Serves slice and concat.
template <class T> void copy_blocks(DEVICE, T* y, int64_t y_stride, const T* x, int64_t x_stride, int64_t block, int64_t count);
// y = x with its axes reordered: axis a of y is axis order[a] of x. shape: x's extents; rank at most 6.
template <class T> void permute(DEVICE, T* y, const T* x, const Shape& shape, const std::vector<int>& order);
// *flag = 1 when every x is finite, else 0.
template <class T> void all_finite(DEVICE, int64_t* flag, const T* x, int64_t n);

// ---- Elementwise ----------------------------------------------------------------------------------------------------
// y = op(x; a, b); see Unary in dispatch.h. bwd: dx = dy * op'(x).
template <class T> void unary_fwd(DEVICE, Unary op, T* y, const T* x, int64_t n, double a, double b);
template <class T> void unary_bwd(DEVICE, Unary op, T* dx, const T* dy, const T* x, int64_t n, double a, double b);
// y[i] = a[i] op b[i % m], n a multiple of m. y may be a.
template <class T> void binary(DEVICE, Binary op, T* y, const T* a, const T* b, int64_t n, int64_t m);
// y[i] += scale * x[i]
template <class T> void add_scaled(DEVICE, T* y, const T* x, int64_t n, double scale);
// y += t * (x - y). Moving averages of weights.
template <class T> void lerp(DEVICE, T* y, const T* x, int64_t n, double t);
// y = gelu(x + bias), exact (erf). x: [N, D], bias: [D]. bwd: dx = dy * gelu'(x + bias).
template <class T> void bias_gelu_fwd(DEVICE, T* y, const T* x, const T* bias, int64_t N, int64_t D);
template <class T> void bias_gelu_bwd(DEVICE, T* dx, const T* dy, const T* x, const T* bias, int64_t N, int64_t D);
// y[r, :] = mask[r] != 0 ? a[r % a_rows, :] : b[r % b_rows, :]. mask: [N], y: [N, D]. A null a or b counts as zeros.
template <class T> void select_rows(DEVICE, T* y, const T* mask, const T* a, int64_t a_rows, const T* b, int64_t b_rows, int64_t N, int64_t D);

// ---- Reductions -----------------------------------------------------------------------------------------------------
// y[o, i] = scale * sum_k x[o, k, i]. x: [outer, n, inner], y: [outer, inner].
template <class T> void sum_axis(DEVICE, T* y, const T* x, int64_t outer, int64_t n, int64_t inner, double scale);
// y[o, k, i] = scale * x[o, i]. The backward of sum_axis.
template <class T> void broadcast_axis(DEVICE, T* y, const T* x, int64_t outer, int64_t n, int64_t inner, double scale);
// *result = sum of squares, accumulated in double.
template <class T> void sum_squares(DEVICE, double* result, const T* x, int64_t n);
// index[r] = first position of the largest x[r, :]. x: [N, D].
template <class T> void argmax_rows(DEVICE, int64_t* index, const T* x, int64_t N, int64_t D);

// ---- Rows by index --------------------------------------------------------------------------------------------------
// y[b, m, :] = x[b, index[b, m], :]. x: [B, N, D] or, when shared, one table [N, D] for all b. Throws on an index
// outside [0, N). bwd: dx[b, i, :] = sum over m with index[b, m] = i of dy[b, m, :], in the order of m (and of b).
template <class T> void gather_rows_fwd(DEVICE, T* y, const T* x, const int64_t* index, int64_t B, int64_t N, int64_t M, int64_t D, bool shared);
template <class T> void gather_rows_bwd(DEVICE, T* dx, const T* dy, const int64_t* index, int64_t B, int64_t N, int64_t M, int64_t D, bool shared);

// ---- Matrix products ------------------------------------------------------------------------------------------------
// C = op(A) op(B), or C += when accumulate. op(A): [M, K], stored [K, M] when trans_a; op(B): [K, N], stored [N, K] when
// trans_b. `batch` products, stride_* elements apart (0: the same matrix for all).
template <class T> void gemm(DEVICE, T* C, const T* A, const T* B, int64_t M, int64_t N, int64_t K, bool trans_a, bool trans_b, bool accumulate, int64_t batch, int64_t stride_c, int64_t stride_a, int64_t stride_b);
// y = x weight^T + bias. x: [M, K], weight: [N, K], bias: [N] or null, y: [M, N].
template <class T> void linear_fwd(DEVICE, T* y, const T* x, const T* weight, const T* bias, int64_t M, int64_t N, int64_t K);

// ---- Convolution and resampling; images are [B, C, H, W] ------------------------------------------------------------
// y[b, o] = bias[o] + sum_c x[b, c] * weight[o, c], zero padding. weight: [Co, Ci, kh, kw], bias: [Co] or null.
template <class T> void conv2d_fwd(DEVICE, T* y, const T* x, const T* weight, const T* bias, const ConvShape& s);
template <class T> void conv2d_bwd_data(DEVICE, T* dx, const T* dy, const T* weight, const ConvShape& s);
template <class T> void conv2d_bwd_weight(DEVICE, T* dweight, const T* dy, const T* x, const ConvShape& s);
// Non-overlapping k x k windows; trailing rows and columns that fill no window are dropped. planes = B * C.
template <class T> void avg_pool_fwd(DEVICE, T* y, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k);
template <class T> void avg_pool_bwd(DEVICE, T* dx, const T* dy, int64_t planes, int64_t H, int64_t W, int64_t k);
// argmax: position inside the input plane (row * W + column) of each maximum, the first on ties.
template <class T> void max_pool_fwd(DEVICE, T* y, int64_t* argmax, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k);
template <class T> void max_pool_bwd(DEVICE, T* dx, const T* dy, const int64_t* argmax, int64_t planes, int64_t H, int64_t W, int64_t k);
// Nearest neighbour; y: [planes, H * k, W * k].
template <class T> void upsample_fwd(DEVICE, T* y, const T* x, int64_t planes, int64_t H, int64_t W, int64_t k);
template <class T> void upsample_bwd(DEVICE, T* dx, const T* dy, int64_t planes, int64_t H, int64_t W, int64_t k);

// ---- Normalisation --------------------------------------------------------------------------------------------------
// y = (x - mean) * rstd * weight + bias over rows of D. x: [N, D]; weight, bias: [D]; saved: mean, rstd [N].
template <class T> void layer_norm_fwd(DEVICE, T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t N, int64_t D, double eps);
template <class T> void layer_norm_bwd(DEVICE, T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean, const T* rstd, int64_t N, int64_t D);
// Per image and group of C / G channels; x: [B, C, S], S = H * W; weight, bias: [C]; saved: mean, rstd [B, G].
// With silu: y = silu(normalised), recomputed in bwd.
template <class T> void group_norm_fwd(DEVICE, T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, int64_t B, int64_t C, int64_t S, int64_t G, double eps, bool silu);
template <class T> void group_norm_bwd(DEVICE, T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* bias, const T* mean, const T* rstd, int64_t B, int64_t C, int64_t S, int64_t G, bool silu);
// Mean and (biased) variance of each channel over batch and space. x: [B, C, S]; mean, var: [C].
template <class T> void channel_moments(DEVICE, T* mean, T* var, const T* x, int64_t B, int64_t C, int64_t S);
// y = (x - mean) / sqrt(var + eps) * weight + bias; weight and bias may be null (no affine map).
template <class T> void batch_norm_fwd(DEVICE, T* y, const T* x, const T* mean, const T* var, const T* weight, const T* bias, int64_t B, int64_t C, int64_t S, double eps);
// batch_moments: mean and var came from x itself (training); else they are constants. dweight, dbias null without affine.
template <class T> void batch_norm_bwd(DEVICE, T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* mean, const T* var, const T* weight, int64_t B, int64_t C, int64_t S, double eps, bool batch_moments);
// y = x / (|x| + eps), |x| the Euclidean norm over the middle axis. x: [outer, n, inner]; saved: norm [outer, inner].
// Where the norm is 0 the gradient is dy / eps.
template <class T> void unit_norm_fwd(DEVICE, T* y, T* norm, const T* x, int64_t outer, int64_t n, int64_t inner, double eps);
template <class T> void unit_norm_bwd(DEVICE, T* dx, const T* dy, const T* x, const T* norm, int64_t outer, int64_t n, int64_t inner, double eps);

// ---- Softmax and cross entropy --------------------------------------------------------------------------------------
// Rows of D. x: [N, D]. bwd reads the forward's output y.
template <class T> void softmax_fwd(DEVICE, T* y, const T* x, int64_t N, int64_t D);
template <class T> void softmax_bwd(DEVICE, T* dx, const T* dy, const T* y, int64_t N, int64_t D);
template <class T> void log_softmax_fwd(DEVICE, T* y, const T* x, int64_t N, int64_t D);
template <class T> void log_softmax_bwd(DEVICE, T* dx, const T* dy, const T* y, int64_t N, int64_t D);
// Cross entropy against q' = (1 - smoothing) q + smoothing / V, averaged with weights: loss[0] = sum_r w_r CE_r / sum_r w_r
// (0 when all weights are 0). logits: [N, V]; target: [N, K], K <= V, zero-padded to V; row_weight: [N].
// dlogits: [N, V], the gradient of the loss, or null.
template <class T> void soft_cross_entropy(DEVICE, T* loss, T* dlogits, const T* logits, const T* target, const T* row_weight, int64_t N, int64_t V, int64_t K, double smoothing);
// The same with q one-hot at label[r] in [0, V).
template <class T> void cross_entropy(DEVICE, T* loss, T* dlogits, const T* logits, const int64_t* label, const T* row_weight, int64_t N, int64_t V, double smoothing);

// ---- Attention ------------------------------------------------------------------------------------------------------
// o = softmax(scale q k^T) v for each image and head. qkv: [B, L, 3, H, Dh] packed; o: [B, L, H, Dh];
// saved: lse [B, H, L], the log-sum-exp of each row's scores; probabilities are recomputed in bwd.
// causal: position i sees positions 0..i only.
template <class T> void attention_fwd(DEVICE, T* o, T* lse, const T* qkv, int64_t B, int64_t L, int64_t H, int64_t Dh, double scale, bool causal);
template <class T> void attention_bwd(DEVICE, T* dqkv, const T* d_o, const T* o, const T* lse, const T* qkv, int64_t B, int64_t L, int64_t H, int64_t Dh, double scale, bool causal);

// ---- Random numbers; number i is a function of (seed, stream, position + i) only, see random.h ----------------------
template <class T> void random_uniform(DEVICE, T* y, int64_t n, uint64_t seed, uint64_t stream, uint64_t position);
template <class T> void random_normal(DEVICE, T* y, int64_t n, uint64_t seed, uint64_t stream, uint64_t position);
// y[i] = u(i / group) < p ? 0 : x[i] / (1 - p), one draw per `group` consecutive elements. Its own backward.
template <class T> void dropout(DEVICE, T* y, const T* x, int64_t n, int64_t group, double p, uint64_t seed, uint64_t stream, uint64_t position);

// ---- Codes ----------------------------------------------------------------------------------------------------------
// code[r] = index of the nearest codebook row by squared distance, the first on ties. z: [N, D]; codebook: [K, D].
template <class T> void nearest_codes(DEVICE, int64_t* code, const T* z, const T* codebook, int64_t N, int64_t K, int64_t D);
// count[k] = how many r have code[r] = k; sum[k, :] = the sum of their z, in the order of r. count: [K], sum: [K, D].
template <class T> void code_sums(DEVICE, T* count, T* sum, const T* z, const int64_t* code, int64_t N, int64_t K, int64_t D);
// mask[b, l] = 1 for the count[b] smallest x[b, :] (ties by position), else 0. x, mask: [B, L]; count: [B], host memory.
template <class T> void smallest_mask(DEVICE, T* mask, const T* x, const int64_t* count, int64_t B, int64_t L);
// Inverse CDF: code[r] = number of cumulative sums of prob[r, :] that are < u[r], at most K - 1. prob: [N, K]; u: [N].
template <class T> void sample_categorical(DEVICE, int64_t* code, const T* prob, const T* u, int64_t N, int64_t K);
// Keeps, per row, the smallest set of largest probabilities that sums to at least p, and renormalises it. y may be x.
template <class T> void top_p(DEVICE, T* y, const T* x, int64_t N, int64_t K, double p);

// ---- Optimizers, in place over flat parameter arenas ----------------------------------------------------------------
// AdamW (Loshchilov & Hutter 2019) as PyTorch: p -= lr * decay * p; m, v moments of g, scaled to step.clip_norm;
// p -= lr * m^ / (sqrt(v^) + eps). What changes from step to step lies in the device's memory, so that nothing waits for it:
// schedule: {lr, 1 - beta1^t, 1 - beta2^t}; norm2: the sum of squares of all gradients. Nothing changes unless that is finite.
template <class T> void adamw(DEVICE, T* p, T* m, T* v, const T* g, int64_t n, const AdamwStep& step, const double* schedule, const double* norm2);
// LARS (You et al. 2017) after its trust ratio is known: g' = scale * (g + decay * p); mu = momentum * mu + g'; p -= lr * mu.
template <class T> void momentum(DEVICE, T* p, T* mu, const T* g, int64_t n, double lr, double momentum, double decay, double scale);
