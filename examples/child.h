// This program, run again as child processes: jobs of their own, whose memory is given back and whose crash stays their
// own. Stop signals reach them, and they die with their parent.
#pragma once
#include <sys/types.h>

#include <string>
#include <vector>

namespace addp {

// From here on SIGINT and SIGTERM are remembered and passed on to the children that run. A terminal sends Ctrl-C to
// them by itself; then it is not sent twice, which would make a child quit without saving.
void install_forwarding_handlers();
int forwarded_stop();  // the signal; 0: none came

constexpr int kMostChildren = 64;  // at a time

// Starts the program with these arguments; what it prints is appended to the file `log`. keep_open: a descriptor that
// it inherits, for instance of a lock that must last as long as it runs; -1: none. Throws Error(runtime) when no
// process can be made. Returns its process id.
pid_t start_child(const std::vector<std::string>& arguments, const std::string& log, int keep_open = -1);

struct ChildOutcome {
  pid_t pid = 0;
  int code = 0;  // the exit code; 128 + signal when one ended it
};
// Waits until one of the children ends. There must be one.
ChildOutcome wait_for_child();

}  // namespace addp
