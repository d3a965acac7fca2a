#!/usr/bin/env python3
"""The fused five-operation chain on 16.7 million floats against NumPy, in turn, in one run.

Needs numpy in the Python that runs it and build/release/bin/bench_core (`make bench` builds it). Prints the
medians of both and their ratio.

    python3 bench/chain_against_numpy.py [rounds]
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCH = ROOT / "build/release/bin/bench_core"


def mica_ms():
    """Milliseconds of one evaluation, by the benchmark's own clock."""
    out = subprocess.run(
        [BENCH, "--benchmark_filter=^FiveOpChain$", "--benchmark_min_time=0.2", "--benchmark_format=json"],
        check=True, capture_output=True, text=True).stdout
    return json.loads(out)["benchmarks"][0]["real_time"]


def numpy_ms(x):
    """The same five operations, each a pass over memory."""
    start = time.perf_counter()
    _ = (np.maximum(x * np.float32(1.5) + np.float32(0.25), x) - np.float32(0.25)) * x
    return 1e3 * (time.perf_counter() - start)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    x = np.full(1 << 24, 0.5, np.float32)
    numpy_ms(x)
    mica, numpy = [], []
    for _ in range(rounds):
        mica.append(mica_ms())
        numpy.append(numpy_ms(x))
    a, b = statistics.median(mica), statistics.median(numpy)
    print(f"mica {a:.2f} ms, numpy {b:.2f} ms, ratio {b / a:.1f}")


if __name__ == "__main__":
    main()
