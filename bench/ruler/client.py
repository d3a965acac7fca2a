"""The driver's side of a worker: starting it quiet, asking, waiting no longer than it is worth."""

import json
import os
import select
import subprocess
import sys

from .places import BENCH, bench_venv

# Results of tens of megabytes come from memory that was used before, in huge pages, as Mica's own
# allocator has them. glibc as it is gives each back at once, and page faults dominate what the peers do.
MALLOC = ("glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000:"
          "glibc.malloc.top_pad=67108864")
# How libraries are kept from AVX-512. NumPy names what it knows; the rest understands "AVX2".
AVX2 = {"MICA_BENCH_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2", "XLA_FLAGS": "--xla_cpu_max_isa=AVX2", "OPENBLAS_CORETYPE": "Haswell"}
# Participants whose entry in peers.json has another name.
PEER_OF = {"torch.compile": "torch", "onednn packed": "onednn"}


class WorkerError(Exception):
    pass


def known_peers():
    path = bench_venv() / "peers.json"
    return json.loads(path.read_text()) if path.exists() else {}


def environment(participant, options):
    """All libraries get the same threads. OpenMP's default is kept, which spins for a few milliseconds
    before it sleeps: the driver waits for that before the next one's turn, and sleeping at once would
    slow the peers' small work. Beside other busy programs it collapses: `--wait passive` then."""
    threads = str(options.threads)
    peers = known_peers()
    path = [str(BENCH), str(options.build / "python")]
    values = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    values.update(KMP_BLOCKTIME="0", JAX_PLATFORMS="cpu", PYTHONPATH=os.pathsep.join(path),
                  PYTHONDONTWRITEBYTECODE="1", TOKENIZERS_PARALLELISM="false", MICA_BENCH_VENV=str(bench_venv()),
                  MICA_BUILD=str(options.build), MICA_BENCH_THREADS=threads)
    if options.malloc == "reuse":
        values["GLIBC_TUNABLES"] = MALLOC
    if options.wait == "passive":
        values["OMP_WAIT_POLICY"] = "PASSIVE"
    core = peers.get("openblas", {}).get("core", "default")
    if participant == "openblas" and core != "default":
        values["OPENBLAS_CORETYPE"] = core
    if options.isa == "avx2":
        values.update(AVX2)
    return {**os.environ, **values}


def command(participant, case, options):
    """argv of the program that takes this part; {build}, {bench} and {python} stand for their places."""
    python = str(bench_venv() / "bin/python")
    if participant in case.commands:
        return [part.format(build=options.build, bench=BENCH, python=python) for part in case.commands[participant]]
    if participant == "ceilings":
        return [str(options.build / "bin/bench_ceilings")]
    return [python, "-m", "ruler.worker", participant]


class Worker:
    """One process; the same one for all cases that it takes part in."""

    def __init__(self, argv, participant, options):
        self.participant = participant
        self.log = open(options.logs / f"{participant.replace('/', '_').replace(' ', '_')}.log", "ab")
        cpus = sorted(os.sched_getaffinity(0))[:options.threads]
        try:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                env=environment(participant, options), preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        except OSError as error:
            self.log.close()
            raise WorkerError(f"cannot start {argv[0]}: {error.strerror}") from None
        self.buffer = b""

    def _line(self, timeout):
        out = self.process.stdout.fileno()
        while b"\n" not in self.buffer:
            if not select.select([out], [], [], timeout)[0]:
                raise WorkerError(f"no answer within {timeout:.0f} s")
            data = os.read(out, 1 << 16)
            if not data:
                code = self.process.wait()
                raise WorkerError(f"ended with {code} (see {self.log.name})")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def ask(self, message, timeout=600):
        """The answer, a dict; raises WorkerError for {"error"}, silence, or an end."""
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
            reply = self._line(timeout)
        except (OSError, ValueError) as error:
            raise WorkerError(f"talking to it: {error}") from None
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def close(self, kill=False):
        try:
            if kill:
                self.process.kill()
            else:
                self.process.stdin.write(b'{"quit": true}\n')
            self.process.stdin.close()
            self.process.wait(timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Workers:
    """All processes of a run, started when first needed."""

    def __init__(self, options):
        self.options = options
        self.running = {}

    def get(self, participant, case):
        """The worker, or raises WorkerError if this machine has none."""
        argv = command(participant, case, self.options)
        key = (participant, *argv)
        worker = self.running.get(key)
        if worker is None or worker.process.poll() is not None:
            absent = known_peers().get(PEER_OF.get(participant, participant), {}).get("absent")
            if absent:
                raise WorkerError(f"not installed: {absent}")
            worker = self.running[key] = Worker(argv, participant, self.options)
        return worker

    def drop(self, worker):
        """Ends a process that failed; the next case starts another."""
        self.running = {key: other for key, other in self.running.items() if other is not worker}
        worker.close(kill=True)

    def close(self):
        for worker in self.running.values():
            worker.close()
        self.running = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def say(text):
    print(text, file=sys.stderr, flush=True)
