// addp doctor: what this build and this machine can do, and what is missing.
#pragma once

namespace addp {

int cmd_doctor();

}  // namespace addp
