// fork and exec of /proc/self/exe. The handlers only set lock-free flags and pass signals on.
#include "examples/child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "tensor/error.h"

namespace addp {
namespace {

std::atomic<int> stop_signal{0};
std::array<std::atomic<pid_t>, kMostChildren> children{};  // 0: a free place

void on_stop(int signal, siginfo_t* info, void*) {
  stop_signal = signal;
  const int saved_errno = errno;
  for (const pid_t pid : children) {
    // From a terminal the whole process group has it already.
    if (pid > 0 && info->si_code != SI_KERNEL) ::kill(pid, signal);
  }
  errno = saved_errno;
}

sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

[[noreturn]] void become(std::vector<char*>& words, pid_t parent, int log, int keep_open, const sigset_t& mask) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  if (keep_open >= 0) ::fcntl(keep_open, F_SETFD, 0);
  // A signal that came since the fork ends the child here.
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  ::execv("/proc/self/exe", words.data());
  std::perror("error: the program cannot be started again");
  ::_exit(127);
}

}  // namespace

void install_forwarding_handlers() {
  struct sigaction action = {};
  action.sa_sigaction = on_stop;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

int forwarded_stop() { return stop_signal; }

pid_t start_child(const std::vector<std::string>& arguments, const std::string& log, int keep_open) {
  const auto place = std::find(children.begin(), children.end(), 0);
  check(place != children.end(), "more than ", kMostChildren, " child processes at a time");
  std::vector<std::string> all = {"addp"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> words;
  for (std::string& word : all) words.push_back(word.data());
  words.push_back(nullptr);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  check(out >= 0, log, ": cannot be written (", std::strerror(errno), ")");

  std::fflush(nullptr);
  sigset_t before;
  const sigset_t stops = stop_signals();
  ::sigprocmask(SIG_BLOCK, &stops, &before);
  const pid_t parent = ::getpid(), pid = ::fork();
  const int error = errno;
  if (pid == 0) become(words, parent, out, keep_open, before);
  if (pid > 0) *place = pid;
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  ::close(out);
  check(pid > 0, "a child process cannot be made (", std::strerror(error), ")");
  return pid;
}

ChildOutcome wait_for_child() {
  int status = 0;
  // The child stays a zombie until its place is free: no signal can meet another process of the same id.
  siginfo_t info = {};
  while (::waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  const pid_t pid = info.si_pid;
  const auto place = std::find(children.begin(), children.end(), pid);
  if (place != children.end()) *place = 0;
  check(pid > 0 && ::waitpid(pid, &status, 0) == pid, "waiting for a child process failed (", std::strerror(errno),
        ")");
  return {pid, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
}

}  // namespace addp
