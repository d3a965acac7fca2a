"""Debian's OpenBLAS: where it is, and which of its kernels is the fastest on this processor.

It chooses kernels by the processor's model and takes a poor set for one newer than itself, so each core
type that the instruction set allows is tried once (OPENBLAS_CORETYPE is read when the library loads).
"""

import ctypes
import os
import subprocess
from pathlib import Path

FOLDERS = ("/usr/lib/*-linux-gnu/openblas-pthread", "/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib")
CORES = {"avx512f": "SkylakeX", "avx512_bf16": "Cooperlake", "avx2": "Haswell"}

MEASURE = """
import ctypes, sys, time
blas = ctypes.CDLL(sys.argv[1])
n = 1024
a = (ctypes.c_float * (n * n))(*([0.5] * (n * n)))
b = (ctypes.c_float * (n * n))(*([0.25] * (n * n)))
c = (ctypes.c_float * (n * n))()
def call():
    blas.cblas_sgemm(101, 111, 111, n, n, n, ctypes.c_float(1), a, n, b, n, ctypes.c_float(0), c, n)
call()
best = 1e9
for _ in range(8):
    start = time.perf_counter()
    call()
    best = min(best, time.perf_counter() - start)
print(2e-9 * n**3 / best)
"""


def find():
    for pattern in FOLDERS:
        for path in sorted(Path("/").glob(pattern.lstrip("/") + "/libopenblas.so.0")):
            return path
    return None


def version(library):
    blas = ctypes.CDLL(str(library))
    blas.openblas_get_config.restype = ctypes.c_char_p
    return blas.openblas_get_config().decode().split()[1]


def candidates():
    """Core types to try; "" is OpenBLAS's own choice."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    cores = [core for flag, core in CORES.items() if flag in flags]
    return ["", *cores, *(["Zen"] if "AuthenticAMD" in text else [])]


def fastest_core(python, library):
    """(core type, {core type: GFLOP/s}), float32, all threads."""
    rates = {}
    for core in candidates():
        environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
        if core:
            environment["OPENBLAS_CORETYPE"] = core
        done = subprocess.run([python, "-c", MEASURE, str(library)], capture_output=True, text=True, env=environment)
        if done.returncode == 0:
            rates[core or "default"] = round(float(done.stdout), 1)
    if not rates:
        raise RuntimeError(f"{library}: sgemm failed with every core type")
    return max(rates, key=rates.get), rates
