// The handlers only set lock-free flags, and quit when asked a second time.
#include "examples/signals.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <string_view>

namespace addp {
namespace {

std::atomic<int> stop_signal{0};
std::atomic<bool> save_flag{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void on_stop(int signal) {
  if (stop_signal.exchange(signal) != 0) ::_exit(128 + signal);
  constexpr std::string_view kNotice = "\nstopping after this step, then saving (once more: quit at once)\n";
  const int saved_errno = errno;
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kNotice.data(), kNotice.size());
  errno = saved_errno;
}

void on_save(int) { save_flag = true; }

void install(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, nullptr);
}

}  // namespace

void install_signal_handlers() {
  install(SIGINT, on_stop);
  install(SIGTERM, on_stop);
  install(SIGUSR1, on_save);
  install(SIGXFSZ, SIG_IGN);
}

bool stop_requested() { return stop_signal != 0; }

int stop_exit_code() { return stop_signal == 0 ? 0 : 128 + stop_signal; }

bool take_save_request() { return save_flag.exchange(false); }

}  // namespace addp
