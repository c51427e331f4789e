// What holds for all ops together: wrong shapes are refused with the op's name, and every op of autograd/ops.h has a
// check_op somewhere in tests/.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <regex>
#include <set>
#include <sstream>

#include "autograd/ops.h"
#include "tests/compare.h"

using namespace addp;

TEST_CASE("ops: wrong shapes are refused with the op's name") {
  const Var a(ones({2, 3})), b(ones({2})), image(ones({2, 4, 3}));
  const Tensor index = from_vector<int64_t>({0, 5}, {2}), rows = ones({2}), labels = from_vector<int64_t>({0, 3}, {2});
  const std::vector<std::pair<std::string, std::function<Var()>>> wrong = {
      {"add", [&] { return add(a, b); }},
      {"sub", [&] { return sub(b, a); }},
      {"mul", [&] { return mul(a, Var(ones({3}, kDouble))); }},
      {"div",
       [&] {
         return div(a, Var(ones({2, 1})));
       }},
      {"clamp", [&] { return clamp(a, 1, 0); }},
      {"bias_gelu", [&] { return bias_gelu(a, b); }},
      {"select_rows", [&] { return select_rows(rows, a, b); }},
      {"reshape", [&] { return reshape(a, {4}); }},
      {"permute",
       [&] {
         return permute(a, {0, 0});
       }},
      {"slice", [&] { return slice(a, 1, 2, 4); }},
      {"concat",
       [&] {
         return concat({a, image}, 0);
       }},
      {"concat",
       [&] {
         return concat({a, Var(ones({2, 4}))}, 0);
       }},
      {"expand", [&] { return expand(a, 0, 3); }},
      {"gather_rows", [&] { return gather_rows(a, index); }},
      {"gather_rows", [&] { return gather_rows(a, ones({2})); }},
      {"gather_tokens", [&] { return gather_tokens(a, index); }},
      {"sum_axis", [&] { return sum_axis(a, 2); }},
      {"mean_axis", [&] { return mean_axis(a, -3); }},
      {"layer_norm", [&] { return layer_norm(a, b, b, 1e-6); }},
      {"group_norm", [&] { return group_norm(image, Var(ones({4})), Var(ones({4})), 3, 1e-6); }},
      {"group_norm", [&] { return group_norm(image, b, b, 2, 1e-6); }},
      {"batch_norm", [&] { return batch_norm(image, {}, {}, rows, rows, true, 0.1, 1e-5); }},
      {"unit_norm", [&] { return unit_norm(a, 2, 1e-6); }},
      {"soft_cross_entropy",
       [&] {
         return soft_cross_entropy(a, ones({2, 4}), {}, 0);
       }},
      {"soft_cross_entropy",
       [&] {
         return soft_cross_entropy(a, ones({2, 3}), ones({3}), 0);
       }},
      {"cross_entropy", [&] { return cross_entropy(a, labels, {}, 0); }},
      {"cross_entropy", [&] { return cross_entropy(a, rows, {}, 0); }},
      {"straight_through", [&] {
         return straight_through(a, ones({3, 2}));
       }}};
  for (const auto& [op, call] : wrong) {
    CAPTURE(op);
    std::string message;
    try {
      call();
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(message.rfind(op + ":", 0) == 0);
  }
}

TEST_CASE("ops: every op of autograd/ops.h has a check_op in tests/") {
  const auto read = [](const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  std::set<std::string> ops;
  const std::string header = read("autograd/ops.h");
  const std::regex declaration(R"((?:^|\n)Var (\w+)\()");
  for (std::sregex_iterator i(header.begin(), header.end(), declaration), end; i != end; ++i) ops.insert((*i)[1]);
  REQUIRE(ops.size() > 40);
  std::set<std::string> tested;
  const std::regex call(R"((\w+)\()");
  for (const auto& entry : std::filesystem::directory_iterator("tests")) {
    if (entry.path().extension() != ".cc") continue;
    const std::string text = read(entry.path());
    for (size_t at = text.find("check_op("); at != std::string::npos; at = text.find("check_op(", at + 1)) {
      // Up to the closing bracket of the call.
      size_t end = text.find('(', at);
      for (int depth = 0; end < text.size(); ++end) {
        depth += text[end] == '(' ? 1 : text[end] == ')' ? -1 : 0;
        if (depth == 0) break;
      }
      const std::string body = text.substr(at, end - at);
      for (std::sregex_iterator i(body.begin(), body.end(), call), last; i != last; ++i) tested.insert((*i)[1]);
    }
  }
  for (const std::string& op : ops) {
    INFO("no check_op for ", op);
    CHECK(tested.count(op) == 1);
  }
}

TEST_CASE("ops: backward from a Var that is no scalar takes the gradient of its value") {
  const Var x(from_vector<double>({1, -2, 3}, {3}), true);
  backward(square(x), from_vector<double>({1, 10, 100}, {3}));
  CHECK(to_vector<double>(x.grad()) == std::vector<double>{2, -40, 600});
  CHECK_THROWS_AS(backward(square(x), from_vector<double>({1, 10}, {2})), Error);
  CHECK_THROWS_AS(backward(square(x)), Error);
}
