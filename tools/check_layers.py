#!/usr/bin/env python3
"""Holds the #include lines to the levels: a folder includes only from rows above its own."""

import os
import re
from pathlib import Path

import repository

ROWS = [
    ["src/base"],
    ["src/core"],
    ["src/ops"],
    ["src/backends/ref", "src/backends/cpu", "src/backends/cuda", "src/transforms", "src/io"],
    ["src/nn", "src/optim", "src/tokenizers"],
    ["src/models"],
    ["src/generate", "src/tune"],
    ["src"],  # src/mica.h, which includes all of the above
    ["apps/cli", "apps/server", "python", "capi"],
]
ROW = {folder: row for row, folders in enumerate(ROWS) for folder in folders}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.MULTILINE)


def folder_of(path):
    """The named folder that holds `path`; a file right under src is its own folder, "src"."""
    for parent in path.parents:
        if str(parent) in ROW and (str(parent) != "src" or path.parent == parent):
            return str(parent)
    return None


def check(root):
    for path in repository.files(root):
        if path.suffix not in (".h", ".cc", ".cu", ".def"):
            continue
        folder = folder_of(path)
        if folder is None:
            if path.parts[0] == "src":
                yield f"{path}: its folder is no level (see ROWS in tools/check_layers.py)"
            continue
        for match in INCLUDE.finditer((root / path).read_text()):
            named = [path.parent / match[1], Path("src") / match[1], Path(match[1])]
            here = next((name for name in named if (root / name).exists()), None)
            if here is None:  # a system header, or one of ours that is not written yet
                here = named[1] if "/" in match[1] else Path("system")
            target = folder_of(Path(os.path.normpath(here)))
            if target and target != folder and ROW[target] >= ROW[folder]:
                yield f"{path}: {folder} may not include {target} (\"{match[1]}\")"


if __name__ == "__main__":
    repository.main(check, __doc__)
