"""Language models with random weights in real shapes against llama.cpp: the same weights as GGUF, at
equal bits per weight (4.5: Q4_0, Q4_K, affine groups of 64; 5.0: groups of 32; 6.5: Q6_K, 6 bits; 8.5: Q8_0, 8 bits).

A call is a token of one sequence, a prompt, or a process up to its first token. `Q4_0` and the like are
llama.cpp with that type; flash attention on or off, whichever is faster, counts."""

from dataclasses import replace

from ruler.case import Case

# Logits after seven ids. Weights that are quantized once more differ; a wrong network differs by more
# than the largest logit (1.4 of it where logits are unrelated).
# Both sides round activations to 8 bits beside quantized weights, each in its own way.
REQUANTIZED, ROUNDED, EXACT = 0.9, 0.2, 0.05
SECONDS = 0.1  # of single tokens: a round is a few calls of several tokens each

LLAMA_1B = dict(shape="llama-1b")
LLAMA_8B = dict(shape="llama-8b", layers=8)
EXPERTS = dict(shape="moe-7b-a1b", layers=8)


def mica(*words):
    return ["{python}", "-m", "lm.worker", "mica", *words]


def llama(kind, *words):
    return ["{python}", "-m", "lm.worker", "llama", kind, *words]


def case(name, model, peers, goals, ceiling, tolerance=EXACT, note="", **task):
    peers = {peer: llama(peer) if isinstance(peer, str) else peer for peer in peers}
    if model.get("layers"):
        note = f"the shape is cut to {model['layers']} layers; {note}".rstrip("; ")
    return Case(f"lm/{name}", None, dict(model=model, **task), peers=tuple(peers), ceiling=ceiling, goals=goals,
                tolerance=tolerance, seconds=SECONDS, commands={"mica": mica(), **peers}, note=note)


def decode(name, model, peers, best, share, **more):
    return case(f"decode/{name}", model, peers, {"best": best, "ceiling": share}, "read", **more)


def prefill(name, model, peers, best, share, ceiling):
    tolerance = {4: REQUANTIZED, 6: ROUNDED, 8: ROUNDED}.get(model.get("bits"), EXACT)
    return case(f"prefill-512/{name}", model, peers, {"best": best, "ceiling": share}, ceiling, tolerance,
                task="prefill", prompt=512)


def four_bits():
    for shape, base in (("1b", LLAMA_1B), ("8b", LLAMA_8B)):
        peers = ("Q4_0", "Q4_K") if shape == "8b" else ("Q4_0", "Q4_K", "Q4_K_M")
        for group in (32, 64):
            yield decode(f"{shape}-4bit-group{group}", dict(**base, bits=4, group=group), peers, 1.9, 0.88,
                         tolerance=REQUANTIZED)


def beside(name, who, alone, peer_words):
    """A participant beside a busy process against itself in quiet."""
    return Case(f"lm/neighbour/{name}", None, dict(model=dict(**LLAMA_1B, bits=4, group=64)), subject=who,
                peers=(alone,), goals={alone: 0.45} if who == "mica" else {}, tolerance=None, seconds=SECONDS,
                commands={who: [*peer_words, "neighbour=1"], alone: peer_words},
                note="one process spins beside it; the ratio is the share of the quiet speed")


def exact():
    """Activations as they are, beside llama.cpp's products, which round them."""
    model = dict(**LLAMA_1B, bits=4, group=64)
    words = {"mica": mica("exact=1")}
    for made in (decode("1b-4bit-exact", model, ("Q4_0", "Q4_K"), 1.0, None, tolerance=REQUANTIZED),
                 prefill("1b-4bit-exact", model, ("Q4_0", "Q4_K"), 1.0, None, "f32")):
        yield replace(made, goals={"best": 1.0}, commands={**made.commands, **words})


def six_bits():
    """Products that are exact in Mica, beside llama.cpp's, which round activations."""
    model = dict(**LLAMA_1B, bits=6)
    yield replace(decode("1b-6bit", model, ("Q6_K",), 1.0, None, tolerance=ROUNDED), goals={})
    yield replace(prefill("1b-6bit", model, ("Q6_K",), 1.0, None, "bf16"), goals={})


def batch():
    quiet = case("decode/1b-4bit-batch8", dict(**LLAMA_1B, bits=4, group=64), ("Q4_0", "Q4_K"), {},
                 "int8", REQUANTIZED, batch=8, tokens=3)
    alone = {"mica batch1": mica("batch=1"), "Q4_0 batch1": llama("Q4_0", "batch=1")}
    return Case(quiet.name, None, quiet.params, peers=(*quiet.peers, *alone), goals={"mica batch1": 5.0},
                tolerance=REQUANTIZED, seconds=SECONDS / 4, commands={**quiet.commands, **alone},
                note="a call is a token of one of the eight")


def first():
    peers = {kind: llama(kind) for kind in ("Q4_0", "Q4_K")}
    return Case("lm/first-token/1b-4bit", None, dict(model=dict(**LLAMA_1B, bits=4), task="first", prompt=32),
                peers=tuple(peers), goals={"best": 3.0, "seconds": 0.15}, tolerance=None, seconds=0.5,
                commands={"mica": mica(), **peers},
                note="from the start of a process to the token after 32, weights in the page cache; llama.cpp by a "
                     "program in C++ that loads, makes a context and decodes, without a vocabulary")


CASES = [
    *four_bits(),
    *exact(),
    *six_bits(),
    decode("1b-8bit", dict(**LLAMA_1B, bits=8), ("Q8_0",), 1.5, 0.90, tolerance=ROUNDED),
    decode("1b-bfloat16", LLAMA_1B, ("BF16",), 1.2, 0.90),
    batch(),
    decode("experts-4bit", dict(**EXPERTS, bits=4), ("Q4_0", "Q4_K"), 1.5, 0.60, tolerance=REQUANTIZED),
    prefill("1b-4bit", dict(**LLAMA_1B, bits=4), ("Q4_0", "Q4_K"), 3.0, 0.60, "int8"),
    prefill("1b-8bit", dict(**LLAMA_1B, bits=8), ("Q8_0",), 4.0, 0.60, "int8"),
    prefill("1b-bfloat16", LLAMA_1B, ("BF16",), 1.8, 0.85, "f32"),
    prefill("1b-float16", dict(**LLAMA_1B, dtype="float16"), ("F16",), 1.8, 0.85, "f32"),
    prefill("1b-float32", dict(**LLAMA_1B, dtype="float32"), ("F32",), 1.8, 0.85, "f32"),
    first(),
    beside("mica", "mica", "mica alone", mica()),
    beside("llama", "Q4_0", "Q4_0 alone", llama("Q4_0")),
]
