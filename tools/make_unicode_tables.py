#!/usr/bin/env python3
"""Writes src/tokenizers/unicode_tables.cc by asking the reference implementation.

Tokenizers split text by properties of characters, and the reference (the package `tokenizers`)
mixes several versions of Unicode: its regular expressions know version 16, its punctuation version
8, its normal forms version 12. Rather than guess, this asks it about every code point.
"Newer" sets hold what PCRE2 10.42 (Debian 12's, Unicode 14) does not know yet.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers==0.23.* unicodedata2
    /tmp/venv/bin/python tools/make_unicode_tables.py > src/tokenizers/unicode_tables.cc
"""

import ctypes
import textwrap

import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

POINTS = [c for c in range(1, 0x110000) if not 0xD800 <= c <= 0xDFFF]
TEXT = "".join(map(chr, POINTS))
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Cf".split()
PROPERTIES = "Alphabetic Uppercase Lowercase Han Latin Cyrillic Arabic Emoji".split()


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def matched(pattern):
    """The code points that a pattern of one character matches."""
    splitter = pre_tokenizers.Split(Regex(pattern), "removed")
    kept = set()
    for _, (begin, end) in splitter.pre_tokenize_str(TEXT):
        kept.update(POINTS[begin:end])
    return set(POINTS) - kept


def cut_out(splitter, text):
    """The code points that a pre-tokenizer sets apart, each standing between two letters."""
    found = set()
    for start in range(0, len(POINTS), 5000):
        chunk = POINTS[start : start + 5000]
        between = text + text.join(map(chr, chunk)) + text
        for _, (begin, end) in splitter.pre_tokenize_str(between):
            if end - begin == 1 and begin % 2 == 1:
                found.add(chunk[begin // 2])
    return found


def removed(normalizer):
    return {c for c in POINTS if normalizer.normalize_str(chr(c)) == ""}


def word_points():
    words = set()
    for start in range(0, len(POINTS), 5000):
        chunk = POINTS[start : start + 5000]
        text = "a" + "a".join(map(chr, chunk)) + "a"
        for _, (begin, end) in pre_tokenizers.Whitespace().pre_tokenize_str(text):
            if end - begin > 1:
                words.update(chunk[i // 2] for i in range(begin, end) if i % 2 == 1)
    return words


def unknown_to_normal_forms():
    """What current Unicode decomposes, composes or reorders and the reference does not."""
    forms = {f: getattr(normalizers, f)() for f in ("NFC", "NFD", "NFKC", "NFKD")}

    def differs(text):
        return any(
            n.normalize_str(text) != unicodedata2.normalize(f, text) for f, n in forms.items()
        )

    found = set()
    for c in POINTS:
        if c < 0x80:
            continue
        # U+0334 has the lowest combining class, U+0345 the highest: any other reorders with one.
        if differs(chr(c)) or differs(chr(c) + "\u0334") or differs("\u0345" + chr(c)):
            found.add(c)
        parts = unicodedata2.decomposition(chr(c))
        if parts and not parts.startswith("<"):
            points = [int(p, 16) for p in parts.split()]
            if len(points) == 2 and differs("".join(map(chr, points))):
                found |= {c, points[0]}
    return found


class Pcre2:
    """The system's library, asked as matched() asks the reference."""

    UTF, UCP, NO_UTF_CHECK = 0x00080000, 0x00020000, 0x40000000

    def __init__(self):
        self.library = library = ctypes.CDLL("libpcre2-8.so.0")
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        library.pcre2_compile_8.restype = pointer
        library.pcre2_compile_8.argtypes = [ctypes.c_char_p, size, ctypes.c_uint32] + [pointer] * 3
        library.pcre2_match_data_create_8.restype = pointer
        library.pcre2_match_8.argtypes = [pointer, ctypes.c_char_p, size, size, ctypes.c_uint32] + [
            pointer
        ] * 2
        version = ctypes.create_string_buffer(64)
        library.pcre2_config_8(11, version)
        assert version.value.startswith(b"10.42 "), "run with PCRE2 10.42"

    def matched(self, pattern):
        error, offset = ctypes.c_int(), ctypes.c_size_t()
        code = self.library.pcre2_compile_8(
            pattern.encode(),
            len(pattern),
            self.UTF | self.UCP,
            ctypes.byref(error),
            ctypes.byref(offset),
            None,
        )
        assert code, pattern
        data = self.library.pcre2_match_data_create_8(1, None)
        found = set()
        for c in POINTS:
            text = chr(c).encode()
            result = self.library.pcre2_match_8(
                code, text, len(text), 0, self.NO_UTF_CHECK, data, None
            )
            if result > 0:
                found.add(c)
        return found


def rows(items):
    print(textwrap.fill(", ".join(items), 98, initial_indent="  ", subsequent_indent="  ") + ",")


def table(name, points):
    print(f"constexpr CodeRange k{name}Ranges[] = {{")
    rows(f"{{0x{a:x},0x{b:x}}}" for a, b in ranges(points))
    print(f"}};\nconst std::span<const CodeRange> k{name} = k{name}Ranges;\n")


def newer_lower():
    """Lower cases that utf8proc 2.8 does not know, as runs with one distance."""
    known = ctypes.CDLL("libutf8proc.so.2").utf8proc_tolower
    out = []
    lower = normalizers.Lowercase()
    for c in POINTS:
        text = lower.normalize_str(chr(c))
        if len(text) != 1 or ord(text) == known(c):
            continue
        delta = ord(text) - c
        if out and out[-1][1] == c - 1 and out[-1][2] == delta:
            out[-1][1] = c
        else:
            out.append([c, c, delta])
    return out


def main():
    print("// Generated by tools/make_unicode_tables.py; see there for what the sets are.")
    print('#include "tokenizers/unicode_tables.h"\n')
    print("namespace mica::tokenizers::tables {\n\n// clang-format off")
    table("Word", word_points())
    table("Numeric", cut_out(pre_tokenizers.Digits(individual_digits=True), "a"))
    table("Punctuation", cut_out(pre_tokenizers.Punctuation("isolated"), "a"))
    table("Mark", removed(normalizers.StripAccents()))
    table("NonspacingMark", removed(normalizers.BertNormalizer(False, False, True, False)))
    table("Control", removed(normalizers.BertNormalizer(True, False, False, False)) - {0xFFFD})
    table("OutsideNormalForms", unknown_to_normal_forms())

    pcre2 = Pcre2()
    script = {"Han", "Latin", "Cyrillic", "Arabic"}.__contains__
    sets = {
        p: matched(r"\p{%s}" % p) - pcre2.matched(r"\p{%s%s}" % ("sc:" if script(p) else "", p))
        for p in CATEGORIES + PROPERTIES
    }
    table("Newer", set().union(*sets.values()))
    print("constexpr NewerRange kNewerPropertyRanges[] = {")
    for name, points in sets.items():
        if points:
            rows(f'{{"{name}",0x{a:x},0x{b:x}}}' for a, b in ranges(points))
    print("};\nconst std::span<const NewerRange> kNewerProperties = kNewerPropertyRanges;\n")
    print("constexpr LowerRange kNewerLowerRanges[] = {")
    rows(f"{{0x{first:x},0x{last:x},{delta}}}" for first, last, delta in newer_lower())
    print("};\nconst std::span<const LowerRange> kNewerLower = kNewerLowerRanges;")
    print("// clang-format on\n\n}  // namespace mica::tokenizers::tables")


if __name__ == "__main__":
    main()
