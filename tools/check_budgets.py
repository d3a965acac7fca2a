#!/usr/bin/env python3
"""Files have at most 600 lines and functions 60; with a reason in tools/budgets_allow.txt 1000 and 100.

C++, CUDA, Python and shell. A C++ function is a block of braces whose head is neither a namespace nor
a type nor data; the scanner knows comments, strings, raw strings and preprocessor lines, no more. A
lambda counts to the function around it, and by itself where there is none."""

import ast
import re

import repository
from cpp_functions import cpp_functions

FILE, FILE_ALLOWED = 600, 1000
FUNCTION, FUNCTION_ALLOWED = 60, 100
ALLOW = "tools/budgets_allow.txt"


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def shell_functions(text):
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        head = re.match(r"(?:function\s+)?([\w-]+)\s*\(\)\s*\{\s*$", line)
        if head and "}" in lines[number:]:
            yield head[1], number, lines[number:].index("}") + 2


def scanner(path, text):
    if path.suffix in (".h", ".cc", ".cu", ".cuh", ".def"):
        return cpp_functions
    if path.suffix == ".py" or re.match(r"#!.*\bpython", text):
        return python_functions
    if path.suffix == ".sh" or re.match(r"#!.*\b(ba)?sh\b", text):
        return shell_functions
    return None


def allowed(root):
    """{"path" or "path:function": line number}; complaints about lines without a reason."""
    entries, complaints = {}, []
    path = root / ALLOW
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        entry, _, reason = line.partition("#")
        if entry.strip() and not reason.strip():
            complaints.append(f"{ALLOW}:{number}: {entry.strip()}: no reason given")
        if entry.strip():
            entries[entry.strip()] = number
    return entries, complaints


def over_budget(root):
    """(name in the allow-list, what to print, length, limit with a reason)"""
    for path in repository.files(root):
        data = (root / path).read_bytes()
        if b"\0" in data[:8192]:
            continue
        text = data.decode(errors="replace")
        functions = scanner(path, text)
        if functions is None:
            continue
        length = text.count("\n")
        if length > FILE:
            yield str(path), f"{path}: {length} lines, the budget is {FILE}", length, FILE_ALLOWED
        for name, line, length in functions(text):
            if length > FUNCTION:
                what = f"{path}:{line}: {name} has {length} lines, the budget is {FUNCTION}"
                yield f"{path}:{name}", what, length, FUNCTION_ALLOWED


def check(root):
    entries, complaints = allowed(root)
    yield from complaints
    used = set()
    for name, what, length, limit in over_budget(root):
        used.add(name)
        if name not in entries:
            yield f"{what} ({limit} with a reason in {ALLOW})"
        elif length > limit:
            yield f"{what}, and {limit} with a reason"
    for name in sorted(entries.keys() - used):
        yield f"{ALLOW}:{entries[name]}: {name} is within the budget: remove the line"


if __name__ == "__main__":
    repository.main(check, __doc__.splitlines()[0])
