import sys
import unittest

from guard import TOOLS, GuardTest

sys.path.insert(0, str(TOOLS))
from cpp_functions import cpp_functions  # noqa: E402


def lines(count, text="  ++x;\n"):
    return text * count


class CheckBudgets(GuardTest):
    guard = "check_budgets.py"

    def test_within_the_budgets_passes(self):
        body = "namespace a {\nclass B {\n" + "int f() {\n  return 1;\n}\n" * 150 + "};\n}\n"
        self.assert_passes({"a.cc": body, "b.py": "def f():\n" + lines(59, "  pass\n")})

    def test_long_files_fail(self):
        self.assert_fails({"a.cc": lines(601, "// x\n")}, "a.cc: 601 lines")
        self.assert_fails({"tool": "#!/usr/bin/env bash\n" + lines(600, "x\n")}, "tool: 601 lines")

    def test_long_functions_fail_in_every_language(self):
        self.assert_fails({"a.cc": "void f() {\n" + lines(59) + "}\n"}, "a.cc:1: f has 61 lines")
        self.assert_fails({"a.py": "def f():\n" + lines(60, "  pass\n")}, "a.py:1: f has 61 lines")
        self.assert_fails({"a.sh": "f() {\n" + lines(59, "  x\n") + "}\n"}, "a.sh:1: f has 61 lines")

    def test_a_reason_allows_more_but_not_everything(self):
        allow = "tools/budgets_allow.txt"
        long = {"a.cc": "void f() {\n" + lines(80) + "}\n"}
        self.assert_passes({**long, allow: "a.cc:f  # one table\n"})
        self.assert_fails({**long, allow: "a.cc:f\n"}, "no reason")
        self.assert_fails({"a.cc": "void f() {\n" + lines(100) + "}\n", allow: "a.cc:f # why\n"}, "102 lines")
        self.assert_fails({"a.cc": "", allow: "a.cc # why\n"}, "remove the line")


class CppFunctions(unittest.TestCase):
    def functions(self, text):
        return [(name, line, length) for name, line, length in cpp_functions(text)]

    def test_heads_of_all_kinds(self):
        self.assertEqual(self.functions("""
namespace a::b {
struct [[nodiscard]] S : T<int> {
  explicit S(int a = 3, int b = {}) noexcept : a_(a), b_{b}, c_{1, 2} {
    x();
  }
  bool operator==(const S&) const { return true; }
  template <class T = int>
  auto g(T t) const -> decltype(t) {
    return t;
  }
  int a_ = 0, b_{0};
};
enum class E : int { A, B };
constexpr int table[] = {
  1, 2, f(3),
};
const auto twice = [](int x) {
  return 2 * x;
};
TEST(Shape, Grows) {
  if (true) { x(); }
}
}  // namespace a::b
"""), [("S", 4, 3), ("operator==", 7, 1), ("g", 8, 4), ("twice", 18, 3), ("Shape.Grows", 21, 3)])

    def test_braces_in_strings_comments_and_macros_do_not_count(self):
        self.assertEqual(self.functions("""
#define BEGIN(x) \\
  void x() {
/* { */ // {
void f() {
  g("{", '{', R"j({"a": {)j", 1'000'000);
}
int h() { return '\\''; }
"""), [("f", 5, 3), ("h", 8, 1)])

    def test_a_lambda_in_a_table_counts(self):
        self.assertEqual(self.functions("""
const Row rows[] = {
  {"a", 1, {2, 3}},
  {"b", [](int x) {
    return x;
  }},
};
"""), [("lambda", 4, 3)])


if __name__ == "__main__":
    unittest.main()
