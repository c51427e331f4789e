// This program, run again as a child process: a job of its own, whose memory is given back and whose crash stays its
// own. Stop signals reach it, and it dies with its parent.
#pragma once
#include <string>
#include <vector>

namespace addp {

// From here on SIGINT and SIGTERM are remembered and passed on to the child that runs. A terminal sends Ctrl-C to the
// child by itself; then it is not sent twice, which would make the child quit without saving.
void install_forwarding_handlers();
int forwarded_stop();  // the signal; 0: none came

struct ChildOutcome {
  int code = 0;  // the exit code; 128 + signal when one ended it
  double seconds = 0;
};

// Runs the program with these arguments; what it prints is appended to the file `log`. keep_open: a descriptor that it
// inherits, for instance of a lock that must last as long as it runs; -1: none. Throws Error(runtime) when no process
// can be made.
ChildOutcome run_child(const std::vector<std::string>& arguments, const std::string& log, int keep_open = -1);

}  // namespace addp
