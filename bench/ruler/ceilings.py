"""The machine's own ceilings, measured by bench/ceilings.cc: at length before the cases, and in short
between the rounds of each."""

from .client import WorkerError
from .case import CEILINGS

SECONDS = 0.3
ROUNDS = 3
MEMORY = ("read", "copy")


def ways(threads, isa):
    """Everything that is tried: (ceiling, threads, pages)."""
    for what in CEILINGS:
        for count in dict.fromkeys((1, threads)):
            for pages in ("ordinary", "huge") if what in MEMORY else (None,):
                yield {"ceiling": what, "threads": count, "pages": pages, "isa": isa}


def text(params, rate, info):
    unit = "GB/s" if params["ceiling"] in MEMORY else "GOP/s" if params["ceiling"] == "int8" else "GFLOP/s"
    pages = f", {params['pages']} pages" if params["pages"] else ""
    plural = "s" if params["threads"] > 1 else ""
    return (f"{params['ceiling']}: {rate / 1e9:.4g} {unit}, {params['threads']} thread{plural}{pages}"
            f" ({info.get('way', '')})")


class NoCase:
    name, commands = "ceilings", {}


def measure_all(workers, options):
    """[{params, rate, text}]; what the processor cannot do is said in `absent`."""
    worker = workers.get("ceilings", NoCase)
    found = []
    for params in ways(options.threads, options.isa):
        try:
            reply = worker.ask({"prepare": {"case": "ceilings", "kind": None, "params": params, "seconds": SECONDS}})
        except WorkerError as error:
            reply = {"absent": str(error)}
        if "absent" in reply:
            found.append({"params": params, "rate": None, "absent": reply["absent"],
                          "text": f"{params['ceiling']}: absent ({reply['absent']})"})
            continue
        seconds = min(worker.ask({"round": True})["fastest"] for _ in range(ROUNDS))
        rate = reply["work"] / seconds
        found.append({"params": params, "rate": rate, "text": text(params, rate, reply["info"])})
        worker.ask({"release": True})
    return found


def best_ways(measured, threads):
    """{ceiling: params of the fastest way with all threads}"""
    best = {}
    for one in measured:
        params = one["params"]
        if params["threads"] == threads and one["rate"]:
            if params["ceiling"] not in best or one["rate"] > best[params["ceiling"]]["rate"]:
                best[params["ceiling"]] = one
    ways = {what: one["params"] for what, one in best.items()}
    # A kind of arithmetic that the processor lacks is done in float32.
    return {what: ways.get(what) or ways["f32"] for what in CEILINGS}


class Best:
    """The most that arithmetic has reached in a run: it is the processor's, and a short sample beside other
    programs may miss it. Memory is shared with other guests of a host and counts as it was in a case."""

    def __init__(self, measured, threads):
        self.rates = {}
        for one in measured:
            if one["params"]["threads"] == threads and one["rate"]:
                self.update(one["params"]["ceiling"], one["rate"])

    def update(self, what, rate):
        """The ceiling that counts, after `rate` was measured in a case."""
        self.rates[what] = max(rate, self.rates.get(what, 0))
        return rate if what in MEMORY else self.rates[what]
