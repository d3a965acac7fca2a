"""A worker around a program on Google Benchmark: `python -m ruler.micro PROGRAM BENCHMARK COUNTER`.

COUNTER is `real_time` or one of the program's own, such as "ns/node"; a round is one run of the program.
"""

import json
import subprocess
import sys

from .protocol import Prepared, serve

UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def seconds_in(output, counter):
    """The figure in seconds; a counter whose name begins with ns/ is an inverted rate, hence in seconds."""
    [one] = json.loads(output)["benchmarks"]
    if counter == "real_time":
        return one["real_time"] * UNITS[one["time_unit"]]
    if counter not in one:
        raise ValueError(f"{one['name']} has no counter {counter!r}")
    return one[counter]


def main():
    program, benchmark, counter = sys.argv[1:]

    def run():
        done = subprocess.run([program, f"--benchmark_filter=^{benchmark}$", "--benchmark_min_time=0.1",
                               "--benchmark_format=json"], capture_output=True, text=True)
        if done.returncode or not done.stdout:
            raise RuntimeError(f"{program}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
        return seconds_in(done.stdout, counter)

    serve(lambda request: Prepared(run=run, timed=True))


if __name__ == "__main__":
    main()
