// FCOS (Tian et al. 2019): a detector without anchors. Every cell of a feature pyramid says for each class whether it
// lies in the middle of an object of that class, how far the object's edges are, and how central the cell is. The
// pyramid is ViTDet's simple one (Li et al. 2022): made by up- and downsampling from the one map that a plain ViT
// gives.
#pragma once
#include <string>
#include <vector>

#include "nn/boxes.h"
#include "nn/segmentation_head.h"

namespace addp {

struct FcosConfig {
  int64_t image_size = 64, stride = 4;  // pixels; stride: of the map that the pyramid is made from
  int64_t in = 128, width = 64;         // channels of that map and of the head
  int64_t classes = 10;
  int64_t convolutions = 2;  // of each of the two towers
};

// One level of the pyramid: its cells in raster order have their centres at (x + 0.5, y + 0.5) * stride.
struct FcosLevel {
  int64_t side = 0, stride = 0;
  double low = 0, high = 0;  // the largest distance to an edge, in pixels, of the objects that are found here
};

// Half the map's stride where that is at least 8, then 1, 2 and 4 times the map's, as far as cells divide evenly.
std::vector<FcosLevel> fcos_levels(const FcosConfig& config);

struct FcosOutput {
  Var classes;     // [B, M, classes] logits; M: the cells of all levels
  Var distances;   // [B, M, 4] left, top, right, bottom, pixels, positive
  Var centreness;  // [B, M] logits
};

// What a cell should say. Objects: those in whose middle (1.5 strides around the centre) and inside of which the cell's
// centre lies, and whose size suits the level; of several the smallest.
struct FcosTargets {
  std::vector<int64_t> label;      // [M] the class, -1: none
  std::vector<double> distances;   // [M, 4]
  std::vector<double> centreness;  // [M] sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)), 0 without object
};
FcosTargets fcos_targets(const std::vector<FcosLevel>& levels, const std::vector<ObjectBox>& objects);

struct FcosLosses {
  Var total;                          // []
  double classes, boxes, centreness;  // its parts
  int64_t positives;                  // cells with an object
};

struct FcosHead {
  FcosHead(const FcosConfig& config, const Rng& rng, Options options);

  FcosOutput operator()(const Var& map) const;  // [B, in, g, g], g = image_size / stride

  // Focal loss over all cells; GIoU, weighted by centreness, and cross entropy of centreness over cells with an object.
  FcosLosses loss(const FcosOutput& output, const std::vector<std::vector<ObjectBox>>& objects) const;

  struct DecodeOptions {
    double min_score = 0.05, max_iou = 0.6;
    int64_t candidates = 400, most = 100;  // an image, before and after suppression
  };
  // Boxes of each image, by falling score = sqrt(class probability * centreness), clipped to the image.
  std::vector<std::vector<Detection>> detections(const FcosOutput& output, const DecodeOptions& options) const;

  template <class F>
  void visit(const std::string& prefix, F&& f) {
    const auto list = [&](const std::string& name, std::vector<ConvNormSilu>& blocks) {
      for (size_t i = 0; i < blocks.size(); ++i) blocks[i].visit(prefix + name + "." + std::to_string(i) + ".", f);
    };
    list("pyramid", pyramid);
    list("class_tower", class_tower);
    list("box_tower", box_tower);
    class_out.visit(prefix + "class_out.", f);
    box_out.visit(prefix + "box_out.", f);
    centre_out.visit(prefix + "centre_out.", f);
    for (size_t i = 0; i < scales.size(); ++i) f(prefix + "scales." + std::to_string(i), scales[i], Role::parameter);
  }

  FcosConfig config;
  std::vector<FcosLevel> levels;
  std::vector<ConvNormSilu> pyramid, class_tower, box_tower;  // one a level; the towers are shared by the levels
  Conv2d class_out, box_out, centre_out;
  std::vector<Var> scales;  // [1] a level, on the logarithm of the distances
};

}  // namespace addp
