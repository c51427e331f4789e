// Winograd's minimal filtering (Lavin and Gray 2016). 3x3 convolutions of stride 1, F(4x4, 3x3): a tile of 4 x 4
// outputs costs 36 multiplications a pair of channels instead of 144. 4x4 convolutions of stride 2 are 2x2 convolutions
// of the four images of every second pixel, F(4x4, 2x2): 100 instead of 256. Rounding errors are somewhat larger than
// those of the plain sum. 3x3 convolutions from or to three channels, F(4, 3) along rows: 6 instead of 12 a row of
// taps. cpu_conv.cc decides by winograd_pays and winograd_halving_pays, from the sizes alone.
#pragma once
#include <cstdint>

#include "tensor/dispatch.h"

namespace addp::cpu {

using kernel::ConvShape;

// Whether the saving outweighs the transforms: 3x3, stride 1, some channels and enough pixels for the weights' share.
template <class T>
bool winograd_pays(const ConvShape& s);

// y = conv(x, weight) + bias, bias [Co] or null, for kernels of 3x3 or 2x2 (stride 1). Entry (co, ci, ky, kx) of the
// weight lies at co * row_step + ci * channel_step + kw ky + kx, or with `flipped` in reversed order.
template <class T>
void winograd(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped, const T* bias,
              const ConvShape& s);

// dweight [Co, Ci, kh, kw], overwritten.
template <class T>
void winograd_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s);

// The same where tiles are few and channels many (cpu_winograd_few.cc), which few_tiles tells.
bool few_tiles(const ConvShape& s);
template <class T>
void winograd_few(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped,
                  const T* bias, const ConvShape& s);
template <class T>
void winograd_few_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s);

// The same from or to up to three channels, in rows of whole tiles (cpu_winograd_rows.cc), which few_channels tells.
bool few_channels(const ConvShape& s);
template <class T>
void winograd_rows(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped,
                   const T* bias, const ConvShape& s);
template <class T>
void winograd_rows_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s);

// 4x4, stride 2 (cpu_winograd_halving.cc): the saving outweighs transforms and rearranging; the same three kernels.
template <class T>
bool winograd_halving_pays(const ConvShape& s);
template <class T>
void winograd_halving(T* y, const T* x, const T* weight, const T* bias, const ConvShape& s);
template <class T>
void winograd_halving_bwd_data(T* dx, const T* dy, const T* weight, const ConvShape& s);
template <class T>
void winograd_halving_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s);

}  // namespace addp::cpu
