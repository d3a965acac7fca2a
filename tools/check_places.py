#!/usr/bin/env python3
"""Nothing committed names a particular machine: its folders, its hosts, its package mirrors."""

import re

import repository

# Written in pieces, so that this file does not find itself.
PATTERNS = {
    "a folder of one machine": rb"(?<![\w.~*}-])/" + rb"(work|farm|root|home/\w+|Users/\w+|tmp/bash_jobs)/",
    "a private address": rb"(?<![\d.])(10\.\d+|192\." + rb"168|172\.(1[6-9]|2\d|3[01]))\.\d+\.\d+(?![\d.])",
    "a private host": rb"https?://[\w.-]+\.(internal|local|lan|corp|intra)\b",
    "a package mirror": rb"(--(extra-)?index" + rb"-url|--trusted" + rb"-host|PIP_INDEX" + rb"_URL|GO" + rb"PROXY)\b",
    "a host with a port": rb"https?://(?!localhost|127\.0\.0\.1|0\.0\.0\.0|\[)[\w.-]+:\d{2,5}\b",
}


def check(root):
    patterns = {what: re.compile(pattern) for what, pattern in PATTERNS.items()}
    for path in repository.files(root):
        data = (root / path).read_bytes()
        text = b"\0" not in data[:8192]
        for what, pattern in patterns.items():
            match = pattern.search(data) if text else None
            if match:
                line = data.count(b"\n", 0, match.start()) + 1
                yield f"{path}:{line}: names {what}: {match[0].decode(errors='replace')}"


if __name__ == "__main__":
    repository.main(check, __doc__)
