// Winograd's minimal filtering for 3x3 convolutions of stride 1 (Lavin and Gray 2016, F(4x4, 3x3)): a tile of 4 x 4
// outputs costs 36 multiplications a pair of channels instead of 144. Rounding errors are somewhat larger than those
// of the plain sum. cpu_conv.cc decides by winograd_pays, from the sizes alone.
#pragma once
#include <cstdint>

#include "tensor/dispatch.h"

namespace addp::cpu {

using kernel::ConvShape;

// Whether the saving outweighs the transforms: 3x3, stride 1, some channels and enough pixels for the weights' share.
template <class T>
bool winograd_pays(const ConvShape& s);

// y = conv(x, weight) + bias, bias [Co] or null. Entry (co, ci, ky, kx) of the weight lies at
// co * row_step + ci * channel_step + 3 ky + kx, or with `flipped` at ... + 8 - 3 ky - kx.
template <class T>
void winograd(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped, const T* bias,
              const ConvShape& s);

// dweight [Co, Ci, 3, 3], overwritten.
template <class T>
void winograd_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s);

// The same where tiles are few and channels many (cpu_winograd_few.cc), which few_tiles tells.
bool few_tiles(const ConvShape& s);
template <class T>
void winograd_few(T* y, const T* x, const T* weight, int64_t row_step, int64_t channel_step, bool flipped,
                  const T* bias, const ConvShape& s);
template <class T>
void winograd_few_bwd_weight(T* dweight, const T* dy, const T* x, const ConvShape& s);

}  // namespace addp::cpu
