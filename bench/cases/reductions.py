"""Sums over each axis and argmax: memory is read once."""

from ruler.case import Case, Kind

PEERS = ("torch.compile", "jax", "torch", "numpy", "mlx")


class Reduce(Kind):
    def inputs(self, rng, shape, **_):
        return [rng.standard_normal(shape, dtype="float32")]

    def mx(self, mx, name, axis, **_):
        reduce = getattr(mx, name)
        return lambda x: reduce(x, axis=axis)

    def torch(self, torch, name, axis, **_):
        reduce = torch.amax if name == "max" else getattr(torch, name)
        return (lambda x: reduce(x)) if axis is None else (lambda x: reduce(x, dim=axis))

    def jax(self, jax, name, axis, **_):
        reduce = getattr(jax.numpy, name)
        return lambda x: reduce(x, axis=axis)

    def numpy(self, np, name, axis, **_):
        reduce = getattr(np, name)
        return lambda x: reduce(x, axis=axis)


def case(name, shape, axis, dtype="float32"):
    total = 1
    for size in shape:
        total *= size
    where = "all" if axis is None else f"axis{axis}"
    return Case(f"reductions/{name}/{dtype}/{'x'.join(map(str, shape))}/{where}", Reduce,
                dict(name=name, shape=shape, axis=axis, dtype=dtype),
                peers=PEERS if dtype == "float32" else ("torch.compile", "jax", "torch"), ceiling="read",
                work=float(total * (4 if dtype == "float32" else 2)), goals={"best": 1.0, "ceiling": 0.85},
                tolerance=1e-3 if dtype == "float32" else 3e-2)


SQUARE, CUBE = (4096, 4096), (256, 256, 256)
CASES = [
    *[case("sum", SQUARE, axis) for axis in (None, 0, 1)],
    *[case("sum", CUBE, axis) for axis in (0, 1, 2)],
    *[case("max", SQUARE, axis) for axis in (0, 1)],
    *[case("argmax", SQUARE, axis) for axis in (0, 1)],
    case("argmax", (64, 262144), 1),
    case("sum", SQUARE, 0, "bfloat16"),
    case("sum", SQUARE, 1, "bfloat16"),
]
