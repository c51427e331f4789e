// Labelled scenes, drawn: garments of Fashion-MNIST (or objects of any data set of gray images on black) in random
// sizes, colours and places on textured canvases, with class masks and boxes. Data for segmentation and detection that
// needs no download, and whose difficulty is known: garments are told apart by shape alone, never by colour.
#pragma once
#include "data/dataset.h"

namespace addp {

// Scene `index` depends on (objects, split, index, image_size) only: 1 to 6 objects, each wholly on the canvas, a later
// one in front of an earlier one, overlapping it a little at most. A box is tight around an object's visible pixels.
// The label of a scene is its first object's. Train and test scenes share no object when `objects` are those of the
// split. image_size: 32 to 1024.
std::shared_ptr<const Dataset> make_scenes(std::shared_ptr<const Dataset> objects, int64_t count, Split split,
                                           int64_t image_size);

// Where an object is in a gray image on black: 255 for everything that no path of nearly black pixels joins to the
// border, so that dark parts inside belong to it; else 0. -> height x width
Image silhouette(const Image& image);

}  // namespace addp
