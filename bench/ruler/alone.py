"""One measurement at a time on a machine: of several runs each would spoil the others."""

import fcntl
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from .client import say

LOCK = "mica-bench.lock"  # in the folder for temporary files


@contextmanager
def alone():
    """Waits for the case that another run measures right now. A run that ends, however, lets go."""
    handle = os.open(Path(tempfile.gettempdir(), LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run on this machine")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
