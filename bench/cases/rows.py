"""What normalizes or reduces rows: softmax, logsumexp, layer_norm, rms_norm; rows long and short."""

from ruler.case import Case, Kind

PEERS = ("torch.compile", "jax", "torch", "numpy", "mlx")


class Softmax(Kind):
    def inputs(self, rng, rows, columns, **_):
        return [rng.standard_normal((rows, columns), dtype="float32")]

    def mx(self, mx, **_):
        return lambda x: mx.softmax(x, axis=-1)

    def torch(self, torch, **_):
        return lambda x: torch.softmax(x, dim=-1)

    def jax(self, jax, **_):
        return lambda x: jax.nn.softmax(x, axis=-1)

    def numpy(self, np, **_):
        def softmax(x):
            e = np.exp(x - x.max(axis=-1, keepdims=True))
            return e / e.sum(axis=-1, keepdims=True)
        return softmax


class Logsumexp(Softmax):
    def mx(self, mx, **_):
        return lambda x: mx.logsumexp(x, axis=-1)

    def torch(self, torch, **_):
        return lambda x: torch.logsumexp(x, dim=-1)

    def jax(self, jax, **_):
        return lambda x: jax.nn.logsumexp(x, axis=-1)

    def numpy(self, np, **_):
        def logsumexp(x):
            most = x.max(axis=-1, keepdims=True)
            return np.log(np.exp(x - most).sum(axis=-1)) + most[:, 0]
        return logsumexp


class LayerNorm(Kind):
    def inputs(self, rng, rows, columns, **_):
        return [rng.standard_normal((rows, columns), dtype="float32"), rng.standard_normal(columns, dtype="float32"),
                rng.standard_normal(columns, dtype="float32")]

    def mx(self, mx, **_):
        return lambda x, w, b: mx.fast.layer_norm(x, w, b, 1e-5)

    def torch(self, torch, columns, **_):
        return lambda x, w, b: torch.nn.functional.layer_norm(x, (columns,), w, b, 1e-5)

    def jax(self, jax, **_):
        def norm(x, w, b):
            centred = x - x.mean(axis=-1, keepdims=True)
            return centred * jax.lax.rsqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5) * w + b
        return norm

    def numpy(self, np, **_):
        def norm(x, w, b):
            centred = x - x.mean(axis=-1, keepdims=True)
            return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5) * w + b
        return norm


class RmsNorm(Kind):
    def inputs(self, rng, rows, columns, **_):
        return [rng.standard_normal((rows, columns), dtype="float32"), rng.standard_normal(columns, dtype="float32")]

    def mx(self, mx, **_):
        return lambda x, w: mx.fast.rms_norm(x, w, 1e-5)

    def torch(self, torch, columns, **_):
        return lambda x, w: torch.nn.functional.rms_norm(x, (columns,), w, 1e-5)

    def jax(self, jax, **_):
        return lambda x, w: x * jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * w

    def numpy(self, np, **_):
        return lambda x, w: x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * w


KINDS = {"softmax": Softmax, "logsumexp": Logsumexp, "layer_norm": LayerNorm, "rms_norm": RmsNorm}
SHAPES = ((4096, 4096), (131072, 128), (128, 131072))


def case(name, rows, columns, dtype="float32"):
    size = 4 if dtype == "float32" else 2
    reduces = name == "logsumexp"
    goals = {"torch.compile": 1.0, "jax": 1.0, "ceiling": 0.85}
    if dtype == "float32":
        goals["numpy"] = 8.0
    return Case(f"rows/{name}/{dtype}/{rows}x{columns}", KINDS[name], dict(rows=rows, columns=columns, dtype=dtype),
                peers=PEERS if dtype == "float32" else ("torch.compile", "jax", "torch"),
                work=float(size * rows * columns * (1 if reduces else 2)), ceiling="read" if reduces else "copy",
                goals=goals, tolerance=1e-4 if dtype == "float32" else 3e-2)


CASES = [*[case(name, *shape) for name in KINDS for shape in SHAPES],
         *[case(name, 4096, 4096, "bfloat16") for name in ("softmax", "rms_norm")]]
