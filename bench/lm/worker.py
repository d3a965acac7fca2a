"""Workers of the language-model cases, one of Mica's engine and one of llama.cpp:

    python -m lm.worker mica [key=value ...]
    python -m lm.worker llama <type of ggml> [key=value ...]

Both drive a program of their own (mica_worker.cc, llama_worker.cc) by lines of text. What a case asks
for (ruler/protocol.py) is in its parameters, of which key=value replaces some for one participant:

    model      how to make the model: arguments of models.folder
    task       "decode" (a call is tokens, its seconds those of one of one sequence), "prefill" (a call is a prompt) or "first" (a
               call is a process from its start to the token after a prompt)
    batch, depth, tokens       of decode: sequences, tokens before, tokens a call
    prompt     tokens of a prompt
    neighbour  1: another process spins meanwhile
    exact      1: Mica does not round activations
"""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from ruler.places import BENCH, bench_venv
from ruler.protocol import Prepared, serve

from . import models

FIRST_IDS = 7  # ids of the prompt whose logits are compared
DEFAULTS = {"task": "decode", "batch": 1, "depth": 0, "tokens": 8, "prompt": 512, "neighbour": 0,
            "exact": 0}


def threads():
    return int(os.environ.get("MICA_BENCH_THREADS") or len(os.sched_getaffinity(0)))


def llama_library():
    [site] = bench_venv().glob("lib/python3*/site-packages")
    return site


def llama_program():
    """The worker's program, built against the library of llama-cpp-python when it is missing or old."""
    program, site = bench_venv() / "bin/llama_worker", llama_library()
    sources = [BENCH / "lm/llama_worker.cc", BENCH / "lm/worker.h", site / "include/llama.h"]
    if program.exists() and program.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return program
    libraries = site / "llama_cpp/lib"
    subprocess.run(["g++", "-std=c++20", "-O3", "-march=native", "-ffast-math", sources[0], f"-I{site}/include",
                    f"-L{libraries}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}",
                    "-o", program], check=True)
    return program


class Program:
    """A worker's program that serves commands."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        state, _, rest = self.process.stdout.readline().rstrip("\n").partition(" ")
        if state != "ok":
            raise RuntimeError(f"{' '.join(map(str, words))[:60]}: {rest or 'the program ended'}")
        return rest

    def seconds(self, *words):
        return float(self.ask(*words))

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def save(self, path):
        raw = f"{path}.raw"
        self.ask("logits", raw, *range(1, FIRST_IDS + 1))
        import numpy as np
        np.save(path, np.fromfile(raw, np.float32))
        os.remove(raw)


@contextmanager
def neighbour(wanted):
    """A process that takes a processor, if it is wanted."""
    if not wanted:
        yield None
        return
    spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.05)
        yield spin
    finally:
        spin.kill()
        spin.wait()


def task_of(program, params):
    """A call of the task: its seconds."""
    if params["task"] == "prefill":
        return lambda: program.seconds("prefill", params["prompt"])
    batch, tokens = params["batch"], params["tokens"]
    return lambda: program.seconds("decode", batch, params["depth"], tokens) / tokens / batch


def weights_size(folder):
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


class Mica:
    def __init__(self, _kind):
        self.path = models.mica().with_name("lm_worker")

    def start(self, params):
        program = Program(self.path)
        self.size = weights_size(params["folder"])
        program.ask("load", params["folder"], threads(), "exact" if params["exact"] else "-")
        # Weights settle in huge pages while a model works (src/models/settle.h); llama.cpp loads into them.
        program.seconds("decode", 1, 0, 64)
        return program

    def work(self, program, params):
        if params["task"] == "prefill":
            return program.seconds("operations", params["prompt"])
        context = max(params["depth"], 1) + params["tokens"] // 2
        return program.seconds("bytes", params["batch"], context) / params["batch"]

    def first(self, params, ids):
        self.size = weights_size(params["folder"])
        return [models.mica(), "generate", "-m", params["folder"], "-n", "1", "-t", str(threads()), "--quiet",
                "--prompt-ids", ",".join(ids)]


class Llama:
    def __init__(self, kind):
        self.kind = kind

    def start(self, params):
        """With flash attention or without, whichever is faster at the task."""
        self.path = models.gguf(params["folder"], self.kind)
        self.size = self.path.stat().st_size
        program, taken = Program(llama_program()), {}
        for option in ("flash", "plain"):
            program.ask("load", self.path, threads(), option)
            call = task_of(program, params)
            taken[option] = min(call() for _ in range(2))
        self.option = min(taken, key=taken.get)
        if self.option != "plain":
            program.ask("load", self.path, threads(), self.option)
        return program

    def work(self, _program, _params):
        return None

    def first(self, params, ids):
        self.path = models.gguf(params["folder"], self.kind)
        self.size = self.path.stat().st_size
        return [llama_program(), "first", self.path, str(threads()), *ids]


def prepare_first(side, params):
    ids = [str(id) for id in range(100, 100 + params["prompt"])]
    argv = list(map(str, side.first(params, ids)))
    info = {"prompt": params["prompt"], "weights_bytes": side.size}

    def run():
        start = time.perf_counter()
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        first = process.stdout.read(1)
        seconds = time.perf_counter() - start
        process.stdout.read()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if not first:
            raise RuntimeError(f"{argv[0]} wrote no token")
        info["peak_bytes"] = usage.ru_maxrss * 1024
        info["peak_over_weights"] = round(info["peak_bytes"] / side.size, 3)
        return seconds

    run()
    return Prepared(run=run, timed=True, info=info)


def preparer(side, overrides):
    def prepare(request):
        params = {**DEFAULTS, **request["params"], **overrides}
        params["folder"] = models.folder(**params["model"])
        if params["task"] == "first":
            return prepare_first(side, params)
        program = side.start(params)
        info = {"weights_bytes": side.size}
        if isinstance(side, Llama):
            info["attention"] = side.option
        return Prepared(run=task_of(program, params), timed=True, save=program.save, close=program.close,
                        around=lambda: neighbour(params["neighbour"]), work=side.work(program, params), info=info)
    return prepare


def main(words):
    sides = {"mica": Mica, "llama": Llama}
    if not words or words[0] not in sides:
        sys.exit(__doc__)
    pairs = dict(word.split("=") for word in words if "=" in word)
    kinds = [word for word in words[1:] if "=" not in word]
    side = sides[words[0]](kinds[0] if kinds else None)
    serve(preparer(side, {key: int(value) for key, value in pairs.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
