"""Attention: causal over 4,096 positions, and one position over a long context with grouped heads."""

from ruler.case import Case, Kind


class Attention(Kind):
    """Queries (1, heads, length, size) over keys of `groups` heads and `context` positions."""

    def inputs(self, rng, heads, length, size, groups=None, context=None, **_):
        keys = (1, groups or heads, context or length, size)
        return [rng.standard_normal(shape, dtype="float32") for shape in ((1, heads, length, size), keys, keys)]

    def mx(self, mx, size, length, **_):
        scale, mask = size ** -0.5, "causal" if length > 1 else None
        return lambda q, k, v: mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)

    def torch(self, torch, heads, length, groups=None, **_):
        attend = torch.nn.functional.scaled_dot_product_attention
        return lambda q, k, v: attend(q, k, v, is_causal=length > 1, enable_gqa=(groups or heads) != heads)

    def jax(self, jax, length, **_):
        def attend(q, k, v):
            swap = jax.numpy.swapaxes
            q, k, v = (swap(x, 1, 2) for x in (q, k, v))
            return swap(jax.nn.dot_product_attention(q, k, v, is_causal=length > 1), 1, 2)
        return attend


def prefill(heads, length, size, dtype="float32", goals=None, peers=("torch",)):
    return Case(f"attention/causal/{dtype}/{length}x{heads}x{size}", Attention,
                dict(heads=heads, length=length, size=size, dtype=dtype), peers=peers,
                work=2.0 * 2 * heads * size * length * (length + 1) / 2, ceiling="f32",
                goals={"torch": 1.5, "ceiling": 0.6} if goals is None else goals,
                tolerance=1e-3 if dtype == "float32" else 3e-2)


def decode(size, dtype):
    heads, groups, context = 32, 8, 32768
    bytes_of = 4 if dtype == "float32" else 2
    return Case(f"attention/decode/{dtype}/{context}x{heads}of{groups}x{size}", Attention,
                dict(heads=heads, groups=groups, length=1, size=size, context=context, dtype=dtype),
                peers=("torch", "jax", "mlx"), work=2.0 * bytes_of * groups * context * size, ceiling="read",
                goals={"torch": 1.5}, tolerance=1e-3 if dtype == "float32" else 3e-2)


CASES = [
    *[prefill(32, 4096, size) for size in (64, 128, 256)],
    prefill(32, 4096, 128, "bfloat16"),
    # Memory over length: `peak_mb` in the results.
    *[prefill(8, length, 64, goals={}, peers=("torch",)) for length in (2048, 8192, 16384)],
    *[decode(128, dtype) for dtype in ("float32", "bfloat16")],
]
