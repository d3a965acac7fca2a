"""Matrix products against oneDNN, OpenBLAS, torch, JAX, NumPy and MLX."""

from ruler.case import Case, Kind


class Matmul(Kind):
    """a @ b, of which `ta`, `tb` are stored transposed; `batch` products at once."""

    def inputs(self, rng, m, n, k, batch=0, ta=False, tb=False, dtype="float32"):
        lead = (batch,) if batch else ()
        a = rng.standard_normal((*lead, *((k, m) if ta else (m, k)))).astype("float32")
        b = rng.standard_normal((*lead, *((n, k) if tb else (k, n)))).astype("float32")
        return [a, b]

    def _with(self, swap, ta, tb, product):
        return lambda a, b: product(swap(a) if ta else a, swap(b) if tb else b)

    def mx(self, mx, ta=False, tb=False, **_):
        return self._with(lambda x: mx.swapaxes(x, -1, -2), ta, tb, mx.matmul)

    def torch(self, torch, ta=False, tb=False, **_):
        return self._with(lambda x: x.mT, ta, tb, torch.matmul)

    def jax(self, jax, ta=False, tb=False, **_):
        return self._with(lambda x: x.mT, ta, tb, jax.numpy.matmul)

    def numpy(self, np, ta=False, tb=False, **_):
        return self._with(lambda x: np.swapaxes(x, -1, -2), ta, tb, np.matmul)


def case(name, m, n, k, peers, goals, **more):
    params = dict(m=m, n=n, k=k, **more)
    dtype = more.get("dtype", "float32")
    return Case(f"matmul/{name}", Matmul, params, peers=peers, goals=goals,
                work=2.0 * m * n * k * max(1, more.get("batch", 0)), ceiling="f32",
                tolerance=1e-4 if dtype == "float32" else 2e-2)


CASES = [case("float32/1024", 1024, 1024, 1024, ("numpy", "torch"), {"best": 1.0})]
