"""Matrix products against oneDNN, OpenBLAS, torch, JAX, NumPy and MLX."""

import ctypes

from ruler.case import Case, Kind

ALL = ("onednn", "onednn packed", "openblas", "torch", "jax", "numpy", "mlx")
HALF = ("onednn", "onednn packed", "torch", "jax", "mlx")
TYPES = {"float32": 0, "bfloat16": 1, "float16": 2}


class Matmul(Kind):
    """a @ b, of which `ta`, `tb` are stored transposed; `batch` products at once."""

    def inputs(self, rng, m, n, k, batch=0, ta=False, tb=False, dtype="float32"):
        lead = (batch,) if batch else ()
        a = rng.standard_normal((*lead, *((k, m) if ta else (m, k))), dtype="float32")
        b = rng.standard_normal((*lead, *((n, k) if tb else (k, n))), dtype="float32")
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

    def openblas(self, blas, m, n, k, batch=0, ta=False, tb=False, **_):
        """One sgemm for each product; 101 row-major, 111 as it is, 112 transposed."""
        import numpy as np
        one, zero, step = ctypes.c_float(1), ctypes.c_float(0), ctypes.sizeof(ctypes.c_float)
        c = np.zeros((batch, m, n) if batch else (m, n), "float32")

        def run(a, b):
            at, bt, ct = a.ctypes.data, b.ctypes.data, c.ctypes.data
            for i in range(max(1, batch)):
                blas.cblas_sgemm(101, 112 if ta else 111, 112 if tb else 111, m, n, k, one,
                                 ctypes.c_void_p(at + i * m * k * step), m if ta else k,
                                 ctypes.c_void_p(bt + i * k * n * step), k if tb else n, zero,
                                 ctypes.c_void_p(ct + i * m * n * step), n)
            return c

        return run

    def onednn(self, dnnl, m, n, k, batch=0, ta=False, tb=False, dtype="float32"):
        import numpy as np
        made = {}

        def run(a, b):
            if not made:
                c = np.zeros((batch, m, n) if batch else (m, n), a.dtype)
                message = ctypes.create_string_buffer(300)
                handle = dnnl.bench_onednn_make(
                    (ctypes.c_int64 * 4)(max(1, batch), m, n, k), ta, tb, TYPES[dtype], dnnl.best,
                    ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(b.ctypes.data), ctypes.c_void_p(c.ctypes.data),
                    message, ctypes.c_size_t(300))
                if not handle:
                    raise RuntimeError(f"oneDNN: {message.value.decode()}")
                made.update(handle=ctypes.c_void_p(handle), c=c)
            if dnnl.bench_onednn_run(made["handle"]):
                raise RuntimeError("oneDNN: execution failed")
            return made["c"]

        return run


def case(name, m, n, k, goals, peers=ALL, ceiling="f32", **more):
    params = dict(m=m, n=n, k=k, **more)
    dtype = more.get("dtype", "float32")
    if ceiling == "read":  # weights once, and the little around them
        work = (4 if dtype == "float32" else 2) * (n * k + m * k + m * n)
    else:
        work = 2.0 * m * n * k * max(1, more.get("batch", 0))
    return Case(f"matmul/{name}", Matmul, params, peers=peers, goals=goals, work=work, ceiling=ceiling,
                tolerance=1e-4 if dtype == "float32" else 2e-2)


def square(n, dtype):
    """MLX's products are too slow to wait for above 1024."""
    peers = tuple(who for who in (ALL if dtype == "float32" else HALF)
                  if who != "mlx" or n <= (1024 if dtype == "float32" else 512))
    goals = {}
    if n >= 256:
        goals = {"best": 1.0, "onednn packed": 1.7} if dtype == "bfloat16" else {"best": 1.0}
    if n == 2048:
        goals["ceiling"] = 0.90
    return case(f"{dtype}/{n}", n, n, n, goals, peers, dtype=dtype)


BEST = {"best": 1.0}
NO_MLX = ALL[:-1]
CASES = [
    *[square(n, "float32") for n in (64, 128, 256, 512, 1024, 2048, 4096)],
    *[square(n, dtype) for dtype in ("bfloat16", "float16") for n in (256, 512, 1024, 2048)],
    *[case(f"transposed/{name}/1024", 1024, 1024, 1024, BEST, NO_MLX, ta=ta, tb=tb)
      for name, ta, tb in (("nt", False, True), ("tn", True, False), ("tt", True, True))],
    case("batched/16x512", 512, 512, 512, BEST, NO_MLX, batch=16),
    case("batched/64x256", 256, 256, 256, BEST, NO_MLX, batch=64),
    case("batched/512x64", 64, 64, 64, {}, NO_MLX, batch=512),
    case("batched/128x512x512x64", 512, 512, 64, BEST, NO_MLX, batch=128),
    *[case(f"skinny/{m}x4096x4096", m, 4096, 4096, BEST, NO_MLX, ceiling="read" if m <= 4 else "f32", tb=True)
      for m in (1, 4, 16, 64)],
    *[case(f"skinny-plain/{m}x4096x4096", m, 4096, 4096, BEST, NO_MLX, ceiling="read" if m <= 4 else "f32")
      for m in (1, 16)],
    *[case(f"skinny/{dtype}/{m}x4096x4096", m, 4096, 4096, BEST, HALF[:-1],
           ceiling="read" if m <= 4 else "f32", tb=True, dtype=dtype)
      for dtype in ("bfloat16", "float16") for m in (1, 16)],
]
