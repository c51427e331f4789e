// The stack machine. Codes are listed in Python's pickletools; the letters below are theirs.
#include "tensor/pickle.h"

#include <bit>
#include <unordered_map>

#include "tensor/error.h"

namespace addp {
namespace {

using Kind = PickleValue::Kind;
constexpr int64_t kMaxCodes = 10'000'000;
constexpr uint32_t kMaxText = 1 << 24;

class Machine {
 public:
  Machine(std::istream& in, const std::string& path) : in_(in), path_(path) {}

  Pickle run() {
    for (int64_t codes = 0;; ++codes) {
      need(codes < kMaxCodes, "it is too long");
      const auto code = static_cast<uint8_t>(number(1));
      if (code == '.') break;
      step(code);
    }
    pickle_.root = pop();
    return std::move(pickle_);
  }

 private:
  void need(bool condition, const char* what) {
    check_as(ErrorKind::checkpoint, condition, path_, ": the pickle is damaged or not a checkpoint's: ", what);
  }

  // Little-endian, `bytes` of them.
  uint64_t number(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) {
      const int byte = in_.get();
      need(byte != std::istream::traits_type::eof(), "it ends early");
      value |= static_cast<uint64_t>(byte) << (8 * i);
    }
    return value;
  }
  std::string text(uint64_t length) {
    need(length <= kMaxText, "a string is too long");
    std::string s(length, '\0');
    need(bool(in_.read(s.data(), static_cast<std::streamsize>(length))), "it ends early");
    return s;
  }
  std::string line() {
    std::string s;
    for (char c; (c = static_cast<char>(number(1))) != '\n';) {
      need(s.size() < 1000, "a name is too long");
      s += c;
    }
    return s;
  }

  int make(PickleValue value) {
    pickle_.values.push_back(std::move(value));
    return static_cast<int>(pickle_.values.size()) - 1;
  }
  void push(int index) { stack_.push_back(index); }
  void push_integer(int64_t value) { push(make({.kind = Kind::integer, .integer = value})); }
  void push_text(std::string s) { push(make({.kind = Kind::text, .text = std::move(s)})); }

  int pop() {
    need(stack_.size() > (marks_.empty() ? 0 : marks_.back()), "a value is missing");
    const int top = stack_.back();
    stack_.pop_back();
    return top;
  }
  std::vector<int> pop_to_mark() {
    need(!marks_.empty(), "a mark is missing");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    marks_.pop_back();
    std::vector<int> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    return items;
  }
  PickleValue& top() {
    need(stack_.size() > (marks_.empty() ? 0 : marks_.back()), "a value is missing");
    return pickle_.values[static_cast<size_t>(stack_.back())];
  }
  void extend_top(const std::vector<int>& items) {
    std::vector<int>& list = top().items;
    list.insert(list.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<int>& items) {
    need(items.size() % 2 == 0, "a key has no value");
    const Kind kind = top().kind;
    need(kind == Kind::dict || kind == Kind::call || kind == Kind::opaque, "items are set on something that has none");
    extend_top(items);
  }
  void push_tuple(size_t n) {
    std::vector<int> items(n);
    while (n > 0) items[--n] = pop();
    push(make({.kind = Kind::tuple, .items = std::move(items)}));
  }
  void push_call() {
    const int argument = pop(), callee = pop();
    push(make({.kind = Kind::call, .callee = callee, .argument = argument}));
  }
  // A two's complement number of any length; longer than 8 bytes it is opaque.
  void push_long(uint64_t bytes) {
    if (bytes > 8) {
      text(bytes);
      return push(make({.kind = Kind::opaque}));
    }
    const int unused = 64 - 8 * static_cast<int>(bytes);
    push_integer(bytes == 0 ? 0 : static_cast<int64_t>(number(static_cast<int>(bytes)) << unused) >> unused);
  }
  void push_real() {
    uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) bits = bits << 8 | number(1);
    push(make({.kind = Kind::real, .real = std::bit_cast<double>(bits)}));
  }
  void put(uint64_t place) { need(!stack_.empty(), "a value is missing"), memo_[place] = stack_.back(); }
  void get(uint64_t place) {
    const auto found = memo_.find(place);
    need(found != memo_.end(), "a reference leads nowhere");
    push(found->second);
  }

  void step(uint8_t code) {
    switch (code) {
      case 0x80:
        number(1);
        break;  // PROTO
      case 0x95:
        number(8);
        break;  // FRAME
      case '(':
        marks_.push_back(stack_.size());
        break;  // MARK
      case '0':
        pop();
        break;  // POP
      case 'N':
        push(make({.kind = Kind::none}));
        break;  // NONE
      case 0x88:
        push(make({.kind = Kind::boolean, .integer = 1}));
        break;  // NEWTRUE
      case 0x89:
        push(make({.kind = Kind::boolean, .integer = 0}));
        break;  // NEWFALSE
      case 'J':
        push_integer(static_cast<int32_t>(number(4)));
        break;  // BININT
      case 'K':
        push_integer(static_cast<int64_t>(number(1)));
        break;  // BININT1
      case 'M':
        push_integer(static_cast<int64_t>(number(2)));
        break;  // BININT2
      case 0x8a:
        push_long(number(1));
        break;  // LONG1
      case 'G':
        push_real();
        break;  // BINFLOAT
      case 'U':
      case 0x8c:
      case 'C':
        push_text(text(number(1)));
        break;  // SHORT_BIN{STRING,UNICODE,BYTES}
      case 'X':
      case 'T':
      case 'B':
        push_text(text(number(4)));
        break;  // BIN{UNICODE,STRING,BYTES}
      case '}':
        push(make({.kind = Kind::dict}));
        break;  // EMPTY_DICT
      case ']':
      case 0x8f:
        push(make({.kind = Kind::list}));
        break;  // EMPTY_LIST, EMPTY_SET
      case ')':
        push_tuple(0);
        break;  // EMPTY_TUPLE
      case 0x85:
        push_tuple(1);
        break;  // TUPLE1
      case 0x86:
        push_tuple(2);
        break;  // TUPLE2
      case 0x87:
        push_tuple(3);
        break;  // TUPLE3
      case 't':
        push(make({.kind = Kind::tuple, .items = pop_to_mark()}));
        break;  // TUPLE
      case 'a':
        extend_top({pop()});
        break;  // APPEND
      case 'e':
      case 0x90:
        extend_top(pop_to_mark());
        break;     // APPENDS, ADDITEMS
      case 's': {  // SETITEM
        const int value = pop(), key = pop();
        set_items({key, value});
        break;
      }
      case 'u':
        set_items(pop_to_mark());
        break;     // SETITEMS
      case 'c': {  // GLOBAL
        const std::string module = line(), name = line();
        push(make({.kind = Kind::global, .text = module + " " + name}));
        break;
      }
      case 0x93: {  // STACK_GLOBAL
        const int name = pop(), module = pop();
        push(make({.kind = Kind::global, .text = pickle_[module].text + " " + pickle_[name].text}));
        break;
      }
      case 'R':
      case 0x81:
        push_call();
        break;  // REDUCE, NEWOBJ
      case 'b':
        pop();
        top();
        break;  // BUILD: the object's state is dropped
      case 'Q':
        push(make({.kind = Kind::persistent, .argument = pop()}));
        break;  // BINPERSID
      case 'q':
        put(number(1));
        break;  // BINPUT
      case 'r':
        put(number(4));
        break;  // LONG_BINPUT
      case 0x94:
        put(memo_.size());
        break;  // MEMOIZE
      case 'h':
        get(number(1));
        break;  // BINGET
      case 'j':
        get(number(4));
        break;  // LONG_BINGET
      default:
        fail(ErrorKind::checkpoint, path_, ": pickle code ", int{code}, " is not supported");
    }
  }

  std::istream& in_;
  const std::string& path_;
  Pickle pickle_;
  std::vector<int> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, int> memo_;
};

}  // namespace

int Pickle::find(int dict, std::string_view key) const {
  const std::vector<int>& items = (*this)[dict].items;
  const Kind kind = (*this)[dict].kind;
  if (kind != Kind::dict && kind != Kind::call) return -1;
  for (size_t i = 0; i + 1 < items.size(); i += 2)
    if ((*this)[items[i]].kind == Kind::text && (*this)[items[i]].text == key) return items[i + 1];
  return -1;
}

Pickle unpickle(std::istream& in, const std::string& path) { return Machine(in, path).run(); }

}  // namespace addp
