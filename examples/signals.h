// Signals as questions that a training loop asks after each step.
//   Ctrl-C or SIGTERM once: finish the step, save, print how to resume, exit 130 or 143; twice: quit at once.
//   SIGUSR1: save and go on.
#pragma once

namespace addp {

// To be called once, before training. Also makes writes beyond a file-size limit fail with an error instead of a kill.
void install_signal_handlers();

bool stop_requested();
int stop_exit_code();      // 130 after Ctrl-C, 143 after SIGTERM, 0 when no stop was requested
bool take_save_request();  // true once after SIGUSR1

}  // namespace addp
