// addp doctor: what this build and this machine can do, and what is missing.
#pragma once

namespace addp {

// roofline: also the device's kernels against its peaks (tensor/roofline.h).
int cmd_doctor(bool roofline);

}  // namespace addp
