#!/usr/bin/env python3
"""Makes odd tokenizers, and what the reference implementation says about odd texts.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers==0.23.*
    /tmp/venv/bin/python tools/make_tokenizer_cases.py --count 500 --out /tmp/more/tokenizers
    MICA_ORACLES=/tmp/more build/release/bin/test_tokenizers

Each folder of the output has a small BPE tokenizer.json of random parts and a cases.json (format:
tests/tokenizers/cases.h). tests/data/tokenizers-odd.tar.xz is the output of --count 100
--cases 16.
"""

import argparse
import json
import os
import random
import re

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = """The quick brown fox jumps over the lazy dog. It isn't what we've been told, I'd say they'll
go. In 1984 there were 12345 reasons; 3.14159 of them were rational! See https://example.com/a?b=c&d=e.
def f(x):\n    return [x ** 2 for x in range(10)]  # comment\n\n\tif x == None:\n\t\tpass\r\n
Zażółć gęślą jaźń. Österreich, Straße, naïve café, Ελληνικά κείμενα, Привет мир, как дела?
日本語のテキストです。これは漢字とひらがな。中文分词测试,你好世界! 한국어 문장입니다.
العربية من اليمين إلى اليسار ١٢٣. עברית שלום. हिन्दी में नमस्ते दुनिया। ไทยไม่มีช่องว่าง
emoji 😀 👨‍👩‍👧‍👦 🇩🇪 ✨ and symbols ∑ ∫ √ ≠ € £ ¥ © ® ™ … — “quotes” ‘single’ «guillemets»
To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer
the the the and and of of to to in in is is that that it it for for was was on on are are"""

# Between the expressions are four spaces or a line end.
SPLITS = re.split(
    r" {4}|\n",
    r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+    \p{N}{1,3}
[一-龥぀-ゟ゠-ヿ]+    \d{1,3}(?=(?:\d{3})*\b)    [\r\n]    \s?\p{L}+    \s?\p{P}+    \d    \D+    \w+
\W+    \s    \S+    \h+    \H    [\w]+    [^\w]+    [^\W\d]+    [^\S\r\n]+    \B.    ^.    .$
\A.    (?m:.)+x?    .+    \R    \N+    \O    [[:punct:]]    [[:alpha:]]+    [[:^alpha:]]
[[:space:][:digit:]]+    [[:word:]]+    [[:upper:]]    \p{Lu}\p{Ll}*    \p{^L}+    \P{L}
\P{^L}+    \p{Latin}+    \p{Greek}|\p{Cyrillic}+    \p{Hiragana}+    \p{Alpha}+    \p{Punct}
\p{Word}+    \p{Space}    \p{Letter}+    \p{Decimal_Number}+    \p{Emoji}    (?i)the
(?i)q(?-i)UICK|quick    ab(?i)c|def|THE    t(?i:HE)|o    (?x) t h e # comment    (?<=t)h
(?<!t)h    (?<=a|bc)d    (?>a+)    a{2}+    a{3,1}    (?:ab){2,}+    (?<n>[a-z])\k<n>
([a-z])\1    [a-z&&[^aeiou]]+    [^a-z&&[^c-e]]    [a[bc]]+    []a]    [^]a]    [a\]b-]
\u0041|\x42|\x{43}|\103    \xe3\x81\x82    \t|\v|\e|\a    {|a{|a{x}    o\Kf    (?#comment)f
\ |\/|\-|\_    [\p{L}-]    [\x{61}-\x{66}\u0067]+    (?:a|the)++    \p{Han}|\p{Arabic}+
(?i:ſ|K|å)""",
)
SPLITS += [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|"
    r"'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|"
    r"'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|"
    r"\s+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{L"
    r"m}\p{Lo}\p{M}&&[^\p{Han}]]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+",
]
# Replacing these at the start of a text confuses the reference's book-keeping, so they only split.
EMPTY_SPLITS = [r"\b", r"$", r"^", r"\Z", r"\z", r"x*", r"", r"(?=t)", r"a{,2}", r"a{2}?", r"a**"]
LITERALS = [" ", "the", "-", ".", "\n", "é", "  ", "'", "▁", "日", "😀", "a.", "(", "\\"]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]

WORDS = (
    CORPUS.split()
    + "I'm don't DON'T we'LL x'S 'ſ 'K yonder <|end|> <s> </s> <mask> [MASK] tok-en".split()
    + "ＴＯＫ DAY Day day <0x41> <0xE2>".split()
)
RUNS = [
    " ",
    "  ",
    "   ",
    " " * 17,
    "\n",
    "\n\n",
    "\r\n",
    "\r\n\r\n",
    "\t",
    "\t\t",
    " \n ",
    "\u00a0",
    "\u3000",
    "\u2003",
]
ODD = (
    "\u180e \x85 \u200b \u200c \u200d \ufeff \u2028 \u2029 \u1680 \u202e \x00 \x01 \x07 "
    "\x1f \x7f \xad \ufffd \ufffe \uffff \ud7ff \ue000 \U0010ffff "
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea e\u0301 A\u030a "
    "q\u0307\u0323 \u1e9b\u0323 \ufb01 \xc5 \xdf \u0130 \u0131 \u03c2 \u03a3 \u01c6 \xbd "
    "\xb2 \xb3 \xbc \u2167 \u2460 \uff8a\uff9d\uff76\uff78 \uac00 \u1100\u1161\u11a8 "
    "\u0958 \u0344 \u0f73 \U0001d15e \u2126 \u0915\u094d\u0937\u093f \u0e01\u0e47 \ufdfa "
    "\u337f \U0001d49c \U00020000 \U00031350 \U0001e030 \U00011f50 \u1c89 \ua7cb "
    "\U00010d50 \u0897 \U00016d63\U00016d67 _ \u203f \xb7 \u3001 \u3002 \u2032 \u0600 "
    "\u070f"
).split(" ")


def random_text(rng):
    parts = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])):
        kind = rng.random()
        if kind < 0.40:
            parts.append(rng.choice(WORDS) + rng.choice(["", " ", " ", " "]))
        elif kind < 0.55:
            parts.append(rng.choice(RUNS))
        elif kind < 0.75:
            parts.append("".join(rng.choice(ODD) for _ in range(rng.randint(1, 3))))
        elif kind < 0.85:
            parts.append("".join(chr(rng.randint(0x20, 0x7E)) for _ in range(rng.randint(1, 8))))
        elif kind < 0.93:
            parts.append("".join(random_char(rng) for _ in range(rng.randint(1, 5))))
        elif kind < 0.97:
            parts.append(rng.choice("a1 あ.") * rng.randint(1, 60))
        else:
            parts.append(
                rng.choice(
                    [
                        "",
                        "\u0301" * rng.randint(1, 40),
                        "\u0323\u0301" * rng.randint(1, 30),
                        "ab" * 200,
                    ]
                )
            )
    text = "".join(parts)
    return (
        text
        if rng.random() < 0.8
        else rng.choice([" ", "\n", "  ", ""]) + text + rng.choice([" ", "\n", "\t ", ""])
    )


def random_char(rng):
    while True:
        top = rng.choice([0x80, 0x250, 0x800, 0x3000, 0x10000, 0x20000, 0x110000])
        c = rng.randrange(top)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def pattern(rng, may_be_empty=True):
    if rng.random() < 0.35:
        return {"String": rng.choice(LITERALS)}
    return {"Regex": rng.choice(EMPTY_SPLITS if may_be_empty and rng.random() < 0.15 else SPLITS)}


def normalizer(rng, depth=0):
    kind = rng.choice(
        ["Sequence"] * (2 if depth < 2 else 0)
        + [
            "NFC",
            "NFD",
            "NFKC",
            "NFKD",
            "Lowercase",
            "Strip",
            "StripAccents",
            "Prepend",
            "Prepend",
            "Replace",
            "Replace",
            "BertNormalizer",
            "Nmt",
            "ByteLevel",
        ]
    )
    out = {"type": kind}
    flag = lambda: rng.random() < 0.5
    if kind == "Sequence":
        out["normalizers"] = [normalizer(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    elif kind == "Strip":
        out |= {"strip_left": flag(), "strip_right": flag()}
    elif kind == "Prepend":
        out["prepend"] = rng.choice(["▁", " ", "x", "▁▁", "é"])
    elif kind == "Replace":
        content = rng.choice(["▁", " ", "", "xy", "é", "\n"])
        out |= {"pattern": pattern(rng, may_be_empty=False), "content": content}
    elif kind == "BertNormalizer":
        out |= {
            "clean_text": flag(),
            "handle_chinese_chars": flag(),
            "strip_accents": rng.choice([None, True, False]),
            "lowercase": flag(),
        }
    return out


def metaspace(rng):
    out = {"type": "Metaspace", "replacement": rng.choice(["▁", "▁", "▁", "_", "é"])}
    out["prepend_scheme"] = rng.choice(["always", "first", "never"])
    if rng.random() < 0.7:
        out["split"] = rng.random() < 0.6
    if rng.random() < 0.3:
        out["add_prefix_space"] = out["prepend_scheme"] != "never"
        if rng.random() < 0.5:
            del out["prepend_scheme"]
    return out


def pre_tokenizer(rng, depth=0):
    kind = rng.choice(
        ["Sequence"] * (3 if depth < 2 else 0)
        + [
            "ByteLevel",
            "ByteLevel",
            "Split",
            "Split",
            "Split",
            "Split",
            "Metaspace",
            "Metaspace",
            "Whitespace",
            "WhitespaceSplit",
            "Digits",
            "Punctuation",
            "BertPreTokenizer",
            "CharDelimiterSplit",
            "FixedLength",
        ]
    )
    out = {"type": kind}
    flag = lambda: rng.random() < 0.5
    if kind == "Sequence":
        out["pretokenizers"] = [pre_tokenizer(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    elif kind == "ByteLevel":
        out |= {"add_prefix_space": flag(), "trim_offsets": flag(), "use_regex": flag()}
    elif kind == "Split":
        out |= {
            "pattern": pattern(rng),
            "behavior": rng.choice(BEHAVIORS),
            "invert": rng.random() < 0.3,
        }
    elif kind == "Metaspace":
        out = metaspace(rng)
    elif kind == "Digits":
        out["individual_digits"] = flag()
    elif kind == "Punctuation":
        out["behavior"] = rng.choice(BEHAVIORS)
    elif kind == "CharDelimiterSplit":
        out["delimiter"] = rng.choice([" ", "a", "日", "-"])
    elif kind == "FixedLength":
        out["length"] = rng.randint(1, 7)
    return out


def decoder(rng, depth=0):
    kind = rng.choice(
        ["Sequence"] * (6 if depth < 2 else 0)
        + [
            "ByteLevel",
            "ByteLevel",
            "ByteFallback",
            "ByteFallback",
            "Fuse",
            "Strip",
            "Replace",
            "Replace",
            "Metaspace",
            "BPEDecoder",
            "WordPiece",
            "CTC",
        ]
    )
    out = {"type": kind}
    if kind == "Sequence":
        if rng.random() < 0.3:
            out["decoders"] = [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": rng.randint(0, 2), "stop": 0},
            ]
        else:
            out["decoders"] = [decoder(rng, depth + 1) for _ in range(rng.randint(1, 4))]
    elif kind == "ByteLevel":
        out |= {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    elif kind == "Strip":
        # The reference aborts where `stop` is more than a token has.
        out |= {
            "content": rng.choice([" ", "▁", "a", "é"]),
            "start": rng.randint(0, 3),
            "stop": rng.choice([0, 0, 0, 1, 2]),
        }
    elif kind == "Replace":
        out |= {"pattern": pattern(rng), "content": rng.choice([" ", "", "é", "aa", "▁"])}
    elif kind == "Metaspace":
        out = metaspace(rng)
    elif kind == "BPEDecoder":
        out["suffix"] = rng.choice(["</w>", "e", "th", "▁"])
    elif kind == "WordPiece":
        out |= {"prefix": rng.choice(["##", "a", "▁"]), "cleanup": rng.random() < 0.5}
    elif kind == "CTC":
        out |= {
            "pad_token": rng.choice(["<pad>", "e", "a"]),
            "word_delimiter_token": rng.choice(["|", "▁", "t"]),
            "cleanup": rng.random() < 0.5,
        }
    return out


def post_processor(rng, vocab, depth=0):
    token = lambda: rng.choice(list(vocab))
    kind = rng.choice(
        [
            "TemplateProcessing",
            "TemplateProcessing",
            "TemplateProcessing",
            "BertProcessing",
            "RobertaProcessing",
            "ByteLevel",
        ]
        + ["Sequence"] * (2 if depth == 0 else 0)
    )
    out = {"type": kind}
    if kind == "Sequence":
        out["processors"] = [
            {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": False,
                "use_regex": True,
            },
            post_processor(rng, vocab, 1),
        ]
    elif kind == "ByteLevel":
        out |= {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    elif kind == "TemplateProcessing":
        names = [token() for _ in range(3)]
        special = lambda: {"SpecialToken": {"id": rng.choice(names), "type_id": 0}}
        sequence = lambda name: {"Sequence": {"id": name, "type_id": 0}}
        around = lambda: [special() for _ in range(rng.randint(0, 2))]
        out["single"] = around() + [sequence("A")] + around()
        out["pair"] = around() + [sequence("A")] + around() + [sequence("B")] + around()
        ids = lambda n: [vocab[n]] if rng.random() < 0.8 else [vocab[n], vocab[n]]
        out["special_tokens"] = {n: {"id": n, "ids": ids(n), "tokens": [n]} for n in names}
        for entry in out["special_tokens"].values():
            entry["tokens"] = [entry["id"]] * len(entry["ids"])
    else:
        sep, cls = token(), token()
        out |= {"sep": [sep, vocab[sep]], "cls": [cls, vocab[cls]]}
        if kind == "RobertaProcessing":
            out |= {"trim_offsets": True, "add_prefix_space": rng.random() < 0.5}
    return out


def added_tokens(rng, vocab):
    contents = [
        "<s>",
        "</s>",
        "<|end|>",
        "<|endoftext|>",
        "yonder",
        "[MASK]",
        "<mask>",
        "Day",
        "DAY",
        "tok",
        "token",
        "  ",
        "\n\n",
        "é",
        "e\u0301",
        "日本",
        "日本語",
        " the",
        "the ",
        "aa",
        "aaa",
        "ＴＯＫ",
        "😀",
        "1",
        "<0x41>",
    ]
    tokens = []
    for content in rng.sample(contents, rng.choice([0, 1, 2, 4, 8])) + (
        rng.sample(list(vocab), 2) if rng.random() < 0.3 else []
    ):
        special = rng.random() < 0.5
        tokens.append(
            {
                "id": 0,
                "content": content,
                "special": special,
                "single_word": rng.random() < 0.25,
                "lstrip": rng.random() < 0.25,
                "rstrip": rng.random() < 0.25,
                "normalized": not special if rng.random() < 0.7 else rng.random() < 0.5,
            }
        )
    next_id = len(vocab)
    for token in tokens:
        if token["content"] in vocab:
            token["id"] = vocab[token["content"]]
        else:
            token["id"] = next_id
            next_id += 1
    return tokens


def model(rng):
    byte_level = rng.random() < 0.5
    prefix = rng.choice([None, None, None, None, None, "##"])
    suffix = rng.choice([None, None, None, None, None, "</w>"])
    options = (
        {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
        if byte_level
        else {"limit_alphabet": rng.choice([20, 60, 1000])}
    )
    affixes = {"continuing_subword_prefix": prefix, "end_of_word_suffix": suffix}
    affixes = {name: value for name, value in affixes.items() if value}
    options |= affixes
    trained = Tokenizer(models.BPE(**affixes))
    splitter = rng.choice(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Metaspace(split=False),
        ]
    )
    trained.pre_tokenizer = pre_tokenizers.ByteLevel() if byte_level else splitter
    trained.train_from_iterator(
        CORPUS.split("\n"),
        trainers.BpeTrainer(vocab_size=rng.choice([270, 350, 600]), show_progress=False, **options),
    )
    out = json.loads(trained.to_str())["model"]
    vocab = out["vocab"]

    def add(token):
        if token not in vocab:
            vocab[token] = len(vocab)

    out["byte_fallback"] = rng.random() < 0.5
    if out["byte_fallback"] or rng.random() < 0.2:
        missing = set(rng.sample(range(256), rng.choice([0, 0, 0, 30])))
        for byte in range(256):
            if byte not in missing:
                add(f"<0x{byte:02X}>")
    out["fuse_unk"] = rng.random() < 0.5
    out["ignore_merges"] = rng.random() < 0.3
    if rng.random() < 0.6:
        out["unk_token"] = "<unk>"
        add("<unk>")
    for token in ["<s>", "</s>"]:
        if rng.random() < 0.5:
            add(token)
    if rng.random() < 0.3:  # no precedence by length
        rng.shuffle(out["merges"])
    if rng.random() < 0.3 and not any(" " in t for pair in out["merges"] for t in pair):
        out["merges"] = [" ".join(pair) for pair in out["merges"]]
    if rng.random() < 0.2:
        out["merges"] = out["merges"][::2] if rng.random() < 0.5 else []
    if rng.random() < 0.1:
        del out["type"]
    return out


def maybe(rng, probability, make, *arguments):
    return make(rng, *arguments) if rng.random() < probability else None


def random_tokenizer(rng):
    bpe = model(rng)
    vocab = bpe["vocab"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(rng, vocab),
        "normalizer": maybe(rng, 0.6, normalizer),
        "pre_tokenizer": maybe(rng, 0.8, pre_tokenizer),
        "post_processor": maybe(rng, 0.5, post_processor, vocab),
        "decoder": maybe(rng, 0.9, decoder),
        "model": bpe,
    }


def case(rng, tokenizer, text, pair=None):
    out = {}
    if text is not None:
        out["text"] = text
        if pair is not None:
            out["pair"] = pair
        out["ids"] = tokenizer.encode(text, pair).ids
        out["ids_no_special"] = tokenizer.encode(text, pair, add_special_tokens=False).ids
    else:
        ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
        favorites = [i for i in ids if "<0x" in (tokenizer.id_to_token(i) or "")] or ids
        pick = lambda: rng.choice(rng.choice([ids, ids, favorites]))
        out["ids"] = [pick() for _ in range(rng.choice([0, 1, 2, 5, 20, 60]))]
    out["decoded"] = tokenizer.decode(out["ids"], skip_special_tokens=True)
    out["decoded_with_special"] = tokenizer.decode(out["ids"], skip_special_tokens=False)
    return out


def cases(rng, tokenizer, count):
    made = []
    for i in range(count):
        text = None if i % 4 == 3 else "" if i == 0 else random_text(rng)
        pair = random_text(rng) if i % 8 == 5 else None
        try:
            made.append(case(rng, tokenizer, text, pair))
        except BaseException as error:  # the reference aborts on some settings
            if isinstance(error, KeyboardInterrupt):
                raise
    return made


def is_ambiguous(tokenizer):
    """Whether normalized added tokens look alike, or like nothing: the reference picks any."""
    forms = [tokenizer.id_to_token(i) for i in tokenizer.get_added_tokens_decoder()]
    return len(set(forms)) < len(forms) or "" in forms


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--cases", type=int, default=24)
    args = parser.parse_args()
    for index in range(args.count):
        rng = random.Random(f"{args.seed}/{index}")
        settings = random_tokenizer(rng)
        text = json.dumps(settings, ensure_ascii=rng.random() < 0.5)
        try:
            tokenizer = Tokenizer.from_str(text)
        except BaseException as error:
            print(index, "not loaded:", str(error)[:100])
            continue
        if is_ambiguous(tokenizer):
            continue
        folder = os.path.join(args.out, f"{args.seed}-{index:04}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "tokenizer.json"), "w") as file:
            file.write(text)
        with open(os.path.join(folder, "cases.json"), "w") as file:
            json.dump(cases(rng, tokenizer, args.cases), file, ensure_ascii=False)


if __name__ == "__main__":
    main()
