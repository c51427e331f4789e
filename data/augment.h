// From an image of any size to the planes that a model reads: padding, cropping, resizing, flipping, normalisation.
// All randomness comes from the given Rng.
#pragma once
#include <array>

#include "data/image.h"
#include "tensor/boxes.h"
#include "tensor/random.h"

namespace addp {

// What is done to training images; the default (nothing random) is what evaluation uses.
struct Augmentation {
  bool random_crop = false;                           // random resized crop, as in torchvision
  double min_scale = 0.2, max_scale = 1.0;            // of the image's area
  double min_ratio = 3.0 / 4.0, max_ratio = 4.0 / 3;  // width / height, drawn on a logarithmic scale
  bool flip = false;                                  // left and right exchanged for every other image
  double erasing = 0;                                 // how often a rectangle of the result becomes noise
};

// A part of an image, in pixels.
struct Box {
  int64_t top, left, height, width;
};

// How a prepared image of size x size lies in its source: the box, which may begin before the source where that was
// padded, is scaled to the whole and then mirrored.
struct Placement {
  Box box;
  bool flip = false;
};

// The largest square in the middle.
Box centre_box(const Image& image);
// torchvision's RandomResizedCrop: ten attempts at a box of random area and ratio that lies in the image, else the
// largest centred box within the range of ratios.
Box random_box(const Image& image, const Augmentation& augmentation, Rng& rng);

// An image that lacks at most kMaxPadding pixels in each direction is centred on a black square of size x size (28x28
// becomes 32x32, every pixel kept); any other comes back as it is.
inline constexpr int64_t kMaxPadding = 4;
Image pad_to(Image image, int64_t size);

// planes: [3, size, size], receives the box of the image resized to size x size, in [0, 1]; gray is repeated. Bilinear
// with a support that grows with the reduction, so that nothing aliases (PIL's BILINEAR). A box of size x size is
// copied exactly.
void resize_box(const Image& image, const Box& box, int64_t size, bool flip, float* planes);

// Random erasing (Zhong et al. 2020, as in timm): a rectangle of 2 to 33 % of the area, its ratio of sides in
// [0.3, 1 / 0.3], filled with uniform noise. planes: [3, size, size].
void erase_rectangle(int64_t size, Rng& rng, float* planes);

// Padding, then the random box or the centre one, then resizing, flipping and erasing.
// Returns where the pixels came from.
Placement prepare_image(Image image, int64_t size, const Augmentation& augmentation, Rng& rng, float* planes);

// What belongs to an image follows its pixels. mask: height x width -> target: [size, size], nearest neighbour, 0 where
// the image was padded. Boxes are clipped; those with less than a pixel left in either direction are dropped.
void place_mask(const std::vector<uint8_t>& mask, int64_t height, int64_t width, const Placement& placement,
                int64_t size, int64_t* target);
std::vector<ObjectBox> place_boxes(const std::vector<ObjectBox>& boxes, const Placement& placement, int64_t size);

inline constexpr std::array<double, 3> kImageNetMean = {0.485, 0.456, 0.406};
inline constexpr std::array<double, 3> kImageNetStd = {0.229, 0.224, 0.225};

// images: [B, 3, H, W] f32 on the CPU -> (images - mean) / std for each channel, a new tensor.
Tensor normalize(const Tensor& images, const std::array<double, 3>& mean = kImageNetMean,
                 const std::array<double, 3>& std = kImageNetStd);

}  // namespace addp
