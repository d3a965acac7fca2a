"""Finds the functions of a C++ file by its braces, without a compiler."""

import re

# In order: what may hide a brace, and a preprocessor line with its continuations.
HIDDEN = re.compile(
    r'//[^\n]*|/\*.*?\*/'
    r'|R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)"'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-zA-Z_])(?:u8|[uUL])?'(?:\\.|[^'\\\n])+'"
    r'|^[ \t]*#(?:\\\n|[^\n])*',
    re.DOTALL | re.MULTILINE)
TYPE = re.compile(r"\b(namespace|class|struct|union|enum)\b|\bextern\b\s*$")
LAMBDA = re.compile(r"\]\s*(<[^{}]*>\s*)?(\([^{}]*\)\s*)?(mutable\b\s*|noexcept\b\s*|->[^{}();]*)*$")
# `Foo(int a) : a_` before the braces of a member's initialiser.
MEMBER = re.compile(r"\)\s*(noexcept\s*)?:.*[\w>]\s*$", re.DOTALL)


def blank(match):
    return re.sub(r"[^\n]", " ", match[0])


def without_nested(text):
    """Each balanced (...) or {...} becomes ()."""
    while True:
        shorter = re.sub(r"\([^(){}]*\)|\{[^(){}]*\}", "@", text)
        if shorter == text:
            return text.replace("@", "()")
        text = shorter


def kind(head, inside_data):
    """What a block with this head is: "function", "scope" (look inside), or "data"."""
    if LAMBDA.search(head) and not re.search(r"\boperator\s*\[\]", head):
        return "function"
    flat = without_nested(re.sub(r"\[\[.*?\]\]", "", head, flags=re.DOTALL))
    if inside_data or "(" in flat.replace("()", ""):
        return "data"
    plain = re.sub(r"\btemplate\s*<.*?>\s*(?=\w|\[)", "", flat, flags=re.DOTALL)
    types = re.sub(r"\b(alignas|__attribute__|MICA_\w+)\s*\(\)", "", plain)
    if TYPE.search(types) and not re.search(r"\w\s*\(\)", types):
        return "scope"
    if re.search(r"(?<![=!<>])=\s*$", re.sub(r"operator\s*\S*=\s*\(", "(", flat)):
        return "data"
    if "()" in flat:
        return "data" if MEMBER.search(flat) else "function"
    return "data"


def name_of(head):
    test = re.search(r"\b(TEST\w*|BENCHMARK\w*)\s*\(([^)]*)\)", head)
    if test:
        return test[2].replace(" ", "").replace(",", ".")
    for match in re.finditer(r"(operator\s*\(\)|operator\s*[^\s(]+|[~\w:]+)\s*\(", head):
        if match[1] not in ("requires", "decltype", "__attribute__", "alignas", "noexcept"):
            return match[1].strip(":")
    match = re.search(r"(\w+)\s*=\s*\[", head)
    return match[1] if match else "lambda"


def cpp_functions(text):
    """Yields (name, line, number of lines), the head included."""
    text = HIDDEN.sub(blank, text)
    stack = []  # (kind, head, where the head begins)
    start, depth_in_function = 0, 0
    for match in re.finditer(r"[{};]", text):
        at, mark = match.start(), match[0]
        if depth_in_function:
            depth_in_function += {"{": 1, "}": -1, ";": 0}[mark]
            if depth_in_function:
                continue
            _, head, begin = stack.pop()
            first = text.count("\n", 0, begin) + 1
            yield name_of(head), first, text.count("\n", 0, at) + 2 - first
            start = at + 1
        elif mark == ";":
            start = at + 1
        elif mark == "}":
            inside, _, begin = stack.pop() if stack else ("scope", "", at)
            # Braces of data are part of an expression that goes on, except in a table.
            in_table = bool(stack) and stack[-1][0] == "data"
            start = begin if inside == "data" and not in_table else at + 1
        else:
            head = text[start:at]
            begin = start + len(head) - len(head.lstrip())
            what = kind(head, bool(stack) and stack[-1][0] == "data")
            stack.append((what, head, begin))
            depth_in_function = 1 if what == "function" else 0
            start = at + 1
