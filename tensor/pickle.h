// Pickle streams as data: the stack machine of Python's pickle (protocol 2 and the few later codes that torch.save
// uses), without the part that makes pickles dangerous: nothing is imported or called. A call is recorded as what was
// to be called with which arguments; the reader of the result decides which calls it understands.
#pragma once
#include <cstdint>
#include <deque>
#include <istream>
#include <string>
#include <string_view>
#include <vector>

namespace addp {

struct PickleValue {
  enum class Kind { none, boolean, integer, real, text, tuple, list, dict, global, call, persistent, opaque };
  Kind kind = Kind::none;
  int64_t integer = 0;          // boolean, integer
  double real = 0;              // real
  std::string text = {};        // text; global: "module name"
  std::vector<int> items = {};  // tuple, list: elements; dict, call: key, value, key, value ...
  int callee = -1;              // call: what was to be called
  int argument = -1;            // call: its argument tuple; persistent: the id
};

// Values refer to each other by index, so that shared and cyclic structures are harmless.
struct Pickle {
  std::deque<PickleValue> values;
  int root = -1;

  const PickleValue& operator[](int index) const { return values.at(static_cast<size_t>(index)); }
  // The value of a text key of a dict (or of a call that got items, such as OrderedDict); -1 when absent.
  int find(int dict, std::string_view key) const;
};

// Reads one pickle up to its STOP. Throws Error(checkpoint) naming the path on damage, on unknown codes and on sizes
// that no checkpoint has.
Pickle unpickle(std::istream& in, const std::string& path);

}  // namespace addp
