"""Copies that move data: transposed, strided, gathered, scattered, joined, broadcast."""

from ruler.case import Case, Kind

PEERS = ("torch", "jax", "numpy", "mlx")


class Copy(Kind):
    """A view made contiguous: transposed by `axes`, or every `step`th element of an axis."""

    def inputs(self, rng, shape, **_):
        return [rng.standard_normal(shape, dtype="float32")]

    def _view(self, transpose, axes, step):
        if axes:
            return lambda x: transpose(x, axes)
        return (lambda x: x[::2]) if step == 0 else (lambda x: x[:, ::2])

    def mx(self, mx, axes=None, step=None, **_):
        view = self._view(mx.transpose, axes, step)
        return lambda x: mx.contiguous(view(x))

    def torch(self, torch, axes=None, step=None, **_):
        view = self._view(torch.permute, axes, step)
        return lambda x: view(x).contiguous()

    def jax(self, jax, axes=None, step=None, **_):
        return self._view(jax.numpy.transpose, axes, step)

    def numpy(self, np, axes=None, step=None, **_):
        view = self._view(np.transpose, axes, step)
        return lambda x: view(x).copy()


class Gather(Kind):
    """Rows of a table at random places."""

    def inputs(self, rng, rows, columns, count, **_):
        return [rng.standard_normal((rows, columns), dtype="float32"),
                rng.integers(0, rows, count).astype("int32")]

    def mx(self, mx, **_):
        return lambda x, i: mx.take(x, i, axis=0)

    def torch(self, torch, **_):
        return lambda x, i: torch.index_select(x, 0, i)

    def jax(self, jax, **_):
        return lambda x, i: jax.numpy.take(x, i, axis=0, mode="clip")

    def numpy(self, np, **_):
        return lambda x, i: np.take(x, i, axis=0)


class ScatterAdd(Kind):
    """Rows added to those of a table at random places, some of them twice; the table is new."""

    def inputs(self, rng, rows, columns, count, **_):
        return [rng.standard_normal((rows, columns), dtype="float32"),
                rng.integers(0, rows, count).astype("int32"),
                rng.standard_normal((count, columns), dtype="float32")]

    def mx(self, mx, **_):
        return lambda x, i, v: x.at[i].add(v)

    def torch(self, torch, **_):
        return lambda x, i, v: torch.index_add(x, 0, i, v)

    def jax(self, jax, **_):
        return lambda x, i, v: x.at[i].add(v)

    def numpy(self, np, **_):
        def add(x, i, v):
            y = x.copy()
            np.add.at(y, i, v)
            return y
        return add


class SliceUpdate(Kind):
    """A block written into state, which is kept: in place where the library can."""

    def inputs(self, rng, rows, columns, count, **_):
        return [rng.standard_normal((rows, columns), dtype="float32"),
                rng.standard_normal((count, columns), dtype="float32")]

    def _assign(self, start, copy):
        state = []

        def update(x, v):
            if not state:
                state.append(copy(x))
            y = state[0]
            y[start:start + v.shape[0]] = v
            state[0] = y
            return y
        return update

    def mx(self, mx, start, **_):
        return self._assign(start, lambda x: x + 0)

    def torch(self, torch, start, **_):
        return self._assign(start, lambda x: x.clone())

    def numpy(self, np, start, **_):
        return self._assign(start, lambda x: x.copy())

    def jax(self, jax, start, **_):
        update = jax.jit(lambda x, v: jax.lax.dynamic_update_slice(x, v, (start, 0)), donate_argnums=0)
        state = []

        def run(x, v):
            state[:] = [update(state[0] if state else x + 0, v)]
            return state[0]

        run.lower = update.lower  # jitted already
        return run


class Concatenate(Kind):
    def inputs(self, rng, shape, axis):
        return [rng.standard_normal(shape, dtype="float32") for _ in range(2)]

    def mx(self, mx, axis, **_):
        return lambda x, y: mx.concatenate([x, y], axis=axis)

    def torch(self, torch, axis, **_):
        return lambda x, y: torch.cat([x, y], dim=axis)

    def jax(self, jax, axis, **_):
        return lambda x, y: jax.numpy.concatenate([x, y], axis=axis)

    def numpy(self, np, axis, **_):
        return lambda x, y: np.concatenate([x, y], axis=axis)


class BroadcastAdd(Kind):
    def inputs(self, rng, shape, other):
        return [rng.standard_normal(shape, dtype="float32"), rng.standard_normal(other, dtype="float32")]

    def add(self, *_, **__):
        return lambda x, y: x + y

    mx = torch = jax = numpy = add


def case(name, kind, work, params, long_rows=True, peers=PEERS, seconds=0.1):
    goals = {"torch": 1.0, "numpy": 1.0}
    if long_rows:
        goals["ceiling"] = 0.7
    return Case(f"movement/{name}", kind, params, peers=peers, work=float(work), ceiling="copy", goals=goals,
                tolerance=1e-5, seconds=seconds)


MB64 = 64 << 20
SIDE = (4096, 4096)
TABLE = dict(rows=65536, columns=256)
CASES = [
    case("transpose/4096x4096", Copy, 2 * MB64, dict(shape=SIDE, axes=(1, 0)), False),
    case("transpose/8x2048x8x128-heads", Copy, 2 * MB64, dict(shape=(8, 2048, 8, 128), axes=(0, 2, 1, 3))),
    case("transpose/64x512x512-last-two", Copy, 2 * MB64, dict(shape=(64, 512, 512), axes=(0, 2, 1)), False),
    case("strided/rows", Copy, MB64, dict(shape=SIDE, step=0)),
    case("strided/columns", Copy, MB64 + MB64 // 2, dict(shape=SIDE, step=1), False),
    case("gather/rows-of-256", Gather, 2 * MB64, dict(**TABLE, count=65536)),
    case("gather/rows-of-4096", Gather, 2 * MB64, dict(rows=4096, columns=4096, count=4096)),
    case("gather/rows-of-16", Gather, 2 * MB64, dict(rows=1 << 20, columns=16, count=1 << 20), False),
    case("scatter-add/rows-of-256", ScatterAdd, 3 * MB64, dict(**TABLE, count=65536)),
    case("scatter-add/rows-of-16", ScatterAdd, 3 * MB64, dict(rows=1 << 20, columns=16, count=1 << 20), False),
    case("slice-update/half", SliceUpdate, MB64, dict(rows=65536, columns=256, count=32768, start=1000)),
    case("slice-update/one-row", SliceUpdate, 2 * 1024, dict(rows=65536, columns=256, count=1, start=1000), False),
    case("concatenate/rows", Concatenate, 4 * MB64, dict(shape=SIDE, axis=0)),
    case("concatenate/columns", Concatenate, 4 * MB64, dict(shape=SIDE, axis=1)),
    case("broadcast-add/row", BroadcastAdd, 2 * MB64, dict(shape=SIDE, other=(4096,))),
    case("broadcast-add/column", BroadcastAdd, 2 * MB64, dict(shape=SIDE, other=(4096, 1))),
    case("broadcast-add/middle", BroadcastAdd, 2 * MB64, dict(shape=(64, 512, 512), other=(64, 1, 512))),
]
