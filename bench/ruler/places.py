"""Where things are: the repository, its builds, the peers' environment, the results."""

import os
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
ROOT = BENCH.parent
RESULTS = BENCH / "results"


def bench_venv():
    """The peers' virtual environment: MICA_BENCH_VENV, or build/bench-venv."""
    return Path(os.environ.get("MICA_BENCH_VENV") or ROOT / "build/bench-venv").absolute()
