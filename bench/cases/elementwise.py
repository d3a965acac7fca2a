"""Chains of elementwise operations: one pass over memory where they are fused."""

from ruler.case import Case, Kind

PEERS = ("torch.compile", "jax", "torch", "numpy", "mlx")
GOALS = {"torch.compile": 1.0, "jax": 1.0, "numpy": 8.0, "ceiling": 0.85}


class Elementwise(Kind):
    """A chain by its name, of one array of n floats."""

    def inputs(self, rng, n, **_):
        return [rng.standard_normal(n, dtype="float32")]

    def mx(self, mx, chain, **_):
        return getattr(self, chain)(mx, mx.sigmoid, mx.tanh)

    def torch(self, torch, chain, **_):
        maximum = torch.maximum
        return getattr(self, chain)(torch, torch.sigmoid, torch.tanh, maximum)

    def jax(self, jax, chain, **_):
        return getattr(self, chain)(jax.numpy, jax.nn.sigmoid, jax.numpy.tanh)

    def numpy(self, np, chain, **_):
        return getattr(self, chain)(np, lambda x: 1 / (1 + np.exp(-x)), np.tanh)

    def five(self, lib, sigmoid, tanh, maximum=None):
        maximum = maximum or lib.maximum
        return lambda x: (maximum(x * 1.5 + 0.25, x) - 0.25) * x

    def silu(self, lib, sigmoid, tanh, maximum=None):
        return lambda x: x * sigmoid(x)

    def gelu(self, lib, sigmoid, tanh, maximum=None):
        return lambda x: 0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def case(chain, dtype="float32", goals=GOALS, peers=PEERS):
    n = 1 << 24
    size = 4 if dtype == "float32" else 2
    return Case(f"elementwise/{chain}/{dtype}/16M", Elementwise, dict(chain=chain, n=n, dtype=dtype), peers=peers,
                work=2.0 * size * n, ceiling="copy", goals=goals, tolerance=1e-5 if size == 4 else 3e-2)


HALF = ("torch.compile", "jax", "torch")
CASES = [
    case("five"),
    case("silu"),
    case("gelu"),
    case("five", "bfloat16", {"torch.compile": 1.0, "jax": 1.0, "ceiling": 0.85}, HALF),
    case("gelu", "bfloat16", {"torch.compile": 1.0, "jax": 1.0}, HALF),
]
