"""The line protocol between the driver and a worker, the worker's side.

One JSON object a line on standard input, one answered on standard output:

    {"prepare": {"case", "kind", "params", "seconds", "output"}}
        -> {"repetitions": n, "seconds": of one call, "work": optional, "info": {...}}
         | {"absent": "why this worker cannot do it"} | {"error": "what went wrong"}
    {"round": true}    -> {"seconds": of one call, "fastest": optional, of the fastest} | {"error": ...}
    {"release": true}  -> {}      forget the case and its memory
    {"quit": true}     -> exits

`prepare` makes the inputs, runs once into the file `output` (.npy) if that is asked for, warms up and
chooses how many repetitions make a round of `seconds`. Between messages a worker sleeps: no thread spins.

    serve(lambda request: Prepared(run=f))         # is all that a worker in Python needs
"""

import contextlib
import gc
import json
import math
import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Callable


class Absent(Exception):
    """This worker has no way to do the case, and that is no mistake."""


@dataclass
class Prepared:
    run: Callable  # one call; its answer is its own seconds if `timed`, otherwise ignored
    timed: bool = False
    save: Callable | None = None  # save(path): runs once and writes the result for comparison
    close: Callable = lambda: None
    around: Callable = contextlib.nullcontext  # a context in which each round runs
    work: float | None = None  # of one call, where the driver cannot know it
    info: dict = field(default_factory=dict)  # goes into the results as it is


def once(prepared):
    start = time.perf_counter()
    seconds = prepared.run()
    return seconds if prepared.timed else time.perf_counter() - start


def round_of(prepared, repetitions):
    """Seconds of one call over a round: the mean, and the fastest."""
    with prepared.around():
        if repetitions <= 1000:
            taken = [once(prepared) for _ in range(repetitions)]
            return sum(taken) / repetitions, min(taken)
        run, start = prepared.run, time.perf_counter()  # calls so short that reading the clock counts
        for _ in range(repetitions):
            run()
        mean = (time.perf_counter() - start) / repetitions
        return mean, mean


def repetitions_for(prepared, seconds):
    """(repetitions that make a round of `seconds`, seconds of one call), after warming up."""
    best, spent, count = math.inf, 0.0, 0
    while count < 2 or (spent < seconds and count < 50):
        taken = once(prepared)
        best, spent, count = min(best, taken), spent + taken, count + 1
        if taken > 2:
            break
    return max(1, math.ceil(seconds / max(best, 1e-9))), best


def answer(request, state, prepare):
    if "prepare" in request:
        wanted = request["prepare"]
        prepared = state["prepared"] = prepare(wanted)
        if wanted.get("output") and prepared.save:
            prepared.save(wanted["output"])
        state["repetitions"], one = repetitions_for(prepared, wanted["seconds"])
        reply = {"repetitions": state["repetitions"], "seconds": one, "info": prepared.info}
        return reply if prepared.work is None else {**reply, "work": prepared.work}
    if "round" in request:
        mean, fastest = round_of(state["prepared"], state["repetitions"])
        return {"seconds": mean, "fastest": fastest}
    if "release" in request:
        if (prepared := state.pop("prepared", None)) is not None:
            prepared.close()
        del prepared
        gc.collect()
        return {}
    raise ValueError(f"unknown request {list(request)}")


def serve(prepare):
    """Answers requests until there are no more. What libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    state = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "quit" in request:
            break
        try:
            reply = answer(request, state, prepare)
        except Absent as reason:
            reply = {"absent": str(reason)}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
