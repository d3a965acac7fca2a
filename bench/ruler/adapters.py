"""How each library takes NumPy arrays, makes sure that work is done, and gives results back."""

import ctypes
import json
import os
from pathlib import Path

from .places import bench_venv


# NumPy warns of those that the processor lacks, and does without them.
NUMPY_AVX512 = ("AVX512F", "AVX512CD", "AVX512_SKX", "AVX512_CLX", "AVX512_CNL", "AVX512_ICL", "AVX512_SPR", "X86_V4")


class PeakMemory:
    """How much the resident memory of this process grew at its peak since the object was made."""

    def __init__(self):
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass
        self.before = self._kilobytes("VmRSS")

    @staticmethod
    def _kilobytes(name):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
        return 0

    def growth_mb(self):
        return round(max(0, self._kilobytes("VmHWM") - self.before) / 1024, 1)


def is_real(value):
    return value.dtype.kind == "f"


class NumPy:
    methods = ("numpy",)

    def __init__(self):
        if os.environ.get("MICA_BENCH_ISA") == "avx2":
            os.environ["NPY_DISABLE_CPU_FEATURES"] = " ".join(NUMPY_AVX512)
        import numpy
        self.module = numpy

    def array(self, value, dtype):
        return value.astype("float32" if dtype == "bfloat16" else dtype) if is_real(value) else value

    def function(self, f):
        return f

    def sync(self, result):
        return result

    def numpy(self, leaf):
        return leaf

    def release(self):
        pass


class Mlx(NumPy):
    methods = ("mlx", "mx")
    name = "mlx.core"

    def __init__(self):
        import importlib
        self.module = importlib.import_module(self.name)

    def array(self, value, dtype):
        array = self.module.array(value.astype("float32") if is_real(value) else value)
        if is_real(value):
            array = array.astype(getattr(self.module, dtype))
        self.module.eval(array)
        return array

    def sync(self, result):
        self.module.eval(result)

    def numpy(self, leaf):
        import numpy
        if not isinstance(leaf, self.module.array):
            return leaf
        return numpy.array(leaf.astype(self.module.float32))

    def release(self):
        self.module.clear_cache()


class Mica(Mlx):
    methods = ("mica", "mx")
    name = "mica.core"

    def __init__(self):
        if os.environ.get("MICA_BENCH_ISA") == "avx2":
            # hwy::DisableTargets, of the library that mica.core loads next: all that is above AVX2.
            ctypes.CDLL("libhwy.so.1", ctypes.RTLD_GLOBAL)._ZN3hwy14DisableTargetsEl(ctypes.c_int64((1 << 9) - 1))
        super().__init__()


class Torch(NumPy):
    methods = ("torch",)

    def __init__(self):
        import torch
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.module = torch

    def array(self, value, dtype):
        tensor = self.module.from_numpy(value)
        return tensor.to(getattr(self.module, dtype)) if is_real(value) else tensor

    def numpy(self, leaf):
        return leaf.detach().float().numpy() if isinstance(leaf, self.module.Tensor) else leaf


class TorchCompiled(Torch):
    methods = ("torch_compile", "torch")

    def __init__(self):
        super().__init__()
        if os.environ.get("MICA_BENCH_ISA") == "avx2":
            from torch._inductor import config
            config.cpp.simdlen = 256

    def function(self, f):
        return self.module.compile(f)

    def release(self):
        self.module.compiler.reset()


class Jax(NumPy):
    methods = ("jax",)

    def __init__(self):
        import jax
        self.module = jax

    def array(self, value, dtype):
        return self.module.numpy.asarray(value, dtype=dtype if is_real(value) else None)

    def function(self, f):
        return f if hasattr(f, "lower") else self.module.jit(f)  # a kind may have jitted it itself

    def sync(self, result):
        self.module.block_until_ready(result)

    def numpy(self, leaf):
        import numpy
        return numpy.asarray(leaf, dtype=numpy.float32)

    def release(self):
        self.module.clear_caches()


class OpenBlas(NumPy):
    methods = ("openblas",)

    def __init__(self):
        peers = json.loads((bench_venv() / "peers.json").read_text())
        self.module = ctypes.CDLL(peers["openblas"]["library"])


class OneDnn(NumPy):
    """Through bench/onednn.cc; `best` lets it lay out the second operand as it likes."""
    methods = ("onednn",)
    best = 0

    def __init__(self):
        path = Path(os.environ["MICA_BUILD"], "bin/bench_onednn.so")
        if not path.exists():
            raise OSError(f"{path.name} is not built: oneDNN was not found when CMake ran")
        self.module = ctypes.CDLL(str(path))
        self.module.bench_onednn_make.restype = ctypes.c_void_p
        self.module.best = self.best

    def array(self, value, dtype):
        if dtype == "bfloat16":
            import ml_dtypes
            return value.astype(ml_dtypes.bfloat16)
        return super().array(value, dtype)


class OneDnnPacked(OneDnn):
    best = 1


ADAPTERS = {"mica": Mica, "mlx": Mlx, "torch": Torch, "torch.compile": TorchCompiled, "jax": Jax,
            "numpy": NumPy, "openblas": OpenBlas,
            "onednn": OneDnn, "onednn packed": OneDnnPacked}
