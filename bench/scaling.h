// How the cost of whole steps grows with their sizes.
#pragma once
#include <string>
#include <vector>

namespace addp {

// Measures the demo preset along each axis (image_size, tokens, width, batch, threads; empty: all), prints tables with
// the exponent of growth between neighbouring points, and writes folder/scaling_AXIS.png and .json.
void measure_scaling(const std::string& folder, const std::vector<std::string>& axes);

}  // namespace addp
