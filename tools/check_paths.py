#!/usr/bin/env python3
"""Each path that README.md and docs/*.md name, in backticks or as a link, exists.

A path is a word that starts with one of the repository's own folders, or names a file at its root;
`<name>` or a stem `x` stands for any name, `{a,b}` for each. docs/architecture.md is the map: it names every folder
of src/. Fenced blocks are commands and their output, and are not read."""

import itertools
import re

import repository

FOLDERS = {"src", "apps", "python", "capi", "tests", "bench", "docs", "examples", "tools", "assets",
           "cmake", ".ci"}
MAP = "docs/architecture.md"


def expand(word):
    """`a/{b,c}/<name>.cc` -> ["a/b/*.cc", "a/c/*.cc"]"""
    word = re.sub(r"<[^<>]*>|(?<=/)x(?=\.)", "*", word)
    parts = [part[1:-1].split(",") if part.startswith("{") else [part]
             for part in re.findall(r"\{[^{}]*\}|[^{}]+", word)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def named_paths(text):
    """(line number, path, relative to the document?)"""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if fenced:
            continue
        for span in re.findall(r"`([^`]+)`", line):
            for word in span.split():
                word = re.sub(r":\d+$", "", word.strip("()\"',;:").rstrip("."))
                first = word.split("/")[0]
                root_file = "/" not in word and re.fullmatch(
                    r"[A-Z]\w*\.(md|txt|json)|Makefile|LICENSE", word)
                if ("/" in word and first in FOLDERS) or root_file:
                    yield from ((number, path, False) for path in expand(word))
        for link in re.findall(r"\]\(([^)\s]+)\)", line):
            target = link.split("#")[0]
            if target and not re.match(r"[a-z]+:", target):
                yield number, target, True


def exists(base, path):
    path = path.rstrip("/")
    return any(base.glob(path)) if "*" in path else (base / path).exists()


def check(root):
    documents = [root / "README.md", *sorted((root / "docs").glob("**/*.md"))]
    for document in documents:
        if not document.exists():
            yield f"{document.relative_to(root)}: missing"
            continue
        for number, path, relative in named_paths(document.read_text()):
            if not exists(document.parent if relative else root, path):
                yield f"{document.relative_to(root)}:{number}: {path} does not exist"
    if not (root / MAP).exists():
        yield f"{MAP}: missing; it is the map of src/"
        return
    chart = set(path.rstrip("/") for _, path, relative in named_paths((root / MAP).read_text())
                if not relative)
    sources = {path.parent for path in repository.files(root) if path.parts[0] == "src"}
    for folder in sorted(str(folder) for folder in sources if len(folder.parts) > 1):
        if not any(name == folder or name.startswith(folder + "/") for name in chart):
            yield f"{MAP}: does not name {folder}"


if __name__ == "__main__":
    repository.main(check, __doc__.splitlines()[0])
