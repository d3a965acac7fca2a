"""A worker in Python: `python -m ruler.worker LIBRARY [beside]` does cases of any Kind with that library;
`beside`: in each round another process keeps one processor busy."""

import contextlib
import importlib
import subprocess
import sys
import time

from . import adapters
from .protocol import Absent, Prepared, serve


def flatten(tree):
    """The arrays of nested dicts, lists and tuples."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in flatten(tree[key])]
    if isinstance(tree, (list, tuple)):
        return [leaf for item in tree for leaf in flatten(item)]
    return [tree]


def save(path, adapter, result):
    """One float32 vector of everything, after its shapes, so that a transposed result differs."""
    import numpy as np
    leaves = [np.asarray(adapter.numpy(leaf), dtype=np.float32) for leaf in flatten(result)]
    shapes = [float(size) for leaf in leaves for size in (leaf.ndim, *leaf.shape)]
    np.save(path, np.concatenate([np.array(shapes, np.float32), *[leaf.ravel() for leaf in leaves]]))


@contextlib.contextmanager
def busy_neighbour():
    """A process that never waits, bound to no processor."""
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)  # it has started
        yield
    finally:
        spinner.kill()
        spinner.wait()


def preparer(library, around=contextlib.nullcontext):
    adapter = adapters.ADAPTERS[library]()

    def prepare(request):
        import numpy as np
        module, _, name = request["kind"].partition(":")
        kind = getattr(importlib.import_module(module), name)()
        make = next((getattr(kind, name) for name in adapter.methods if hasattr(kind, name)), None)
        if make is None:
            raise Absent(f"the case does not say how {library} does it")
        params = request["params"]
        inputs = [adapter.array(value, params.get("dtype", "float32"))
                  for value in kind.inputs(np.random.default_rng(7), **params)]
        function = adapter.function(make(adapter.module, **params))
        call, sync = function, adapter.sync
        memory = adapters.PeakMemory()
        sync(call(*inputs))
        return Prepared(run=lambda: sync(call(*inputs)),
                        save=lambda path: save(path, adapter, call(*inputs)),
                        close=adapter.release, around=around,
                        info={"peak_mb": memory.growth_mb()})

    return prepare


if __name__ == "__main__":
    serve(preparer(sys.argv[1], busy_neighbour if sys.argv[2:] == ["beside"] else contextlib.nullcontext))
