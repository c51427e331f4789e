// How the program is put together. main.cc parses the command line into one plain struct per subcommand and calls
//   int cmd_train(const TrainOptions&);   declared in examples/cmd_train.h, defined in examples/cmd_train.cc
// which prints results on stdout and everything else on stderr, returns the exit code, and throws Error for whatever
// goes wrong. run_guarded turns what was thrown into a message and an exit code.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace addp {

// Calls f and returns its exit code. Exceptions are printed as `error: ...` on stderr and become exit codes: Error its
// kind's, std::bad_alloc 5, everything else 1. Results that could not be written to stdout (a full disk) are an error.
int run_guarded(const std::function<int()>& f);

// The command that continues a stopped run, to be pasted into a shell: the arguments it was started with (the program's
// name first), quoted where needed, with --resume and without --overwrite.
std::string resume_command(const std::vector<std::string>& arguments);

}  // namespace addp
