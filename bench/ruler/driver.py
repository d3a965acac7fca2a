"""Measures one case: prepares everyone, compares their results, alternates them round by round."""

import time
from pathlib import Path

from . import ceilings, results
from .client import WorkerError, say

HOPELESS = 10  # times the subject's time, and
LONG = 0.5  # seconds for a call: who is above both takes one round
SETTLE = 0.02  # seconds before each round, in which threads of the one before go to sleep
CEILING_SECONDS = 0.1
PREPARE_SECONDS = 3600  # models are made when a case first asks


class Run:
    """A run of cases with one set of workers; `measured` are the ceilings as ceilings.py found them."""

    def __init__(self, workers, options, measured):
        self.workers, self.options = workers, options
        self.ways = ceilings.best_ways(measured, options.threads)
        self.best = ceilings.Best(measured, options.threads)

    def _prepare(self, case, who, request, absent):
        """(worker, its reply), or None after noting why not."""
        worker = None
        try:
            worker = self.workers.get(who, case)
            reply = worker.ask({"prepare": request}, PREPARE_SECONDS)
        except WorkerError as error:
            # One that is late would answer the next question with this one's answer.
            if worker is not None and (worker.process.poll() is not None or "no answer" in str(error)):
                self.workers.drop(worker)
            absent[who] = str(error)
            return None
        if "absent" in reply:
            absent[who] = reply["absent"]
            return None
        return worker, reply

    def prepare(self, case, absent):
        """{participant: (worker, reply)}, the ceiling among them as "ceiling"."""
        ready = {}
        for who in case.participants:
            output = None if case.tolerance is None else self.output(who)
            request = {**case.request(self.options.seconds), "output": output and str(output)}
            if (prepared := self._prepare(case, who, request, absent)) is not None:
                ready[who] = prepared
        if case.ceiling:
            request = {"case": case.name, "kind": None, "params": self.ways[case.ceiling],
                       "seconds": CEILING_SECONDS}
            if (prepared := self._prepare(case, "ceilings", request, absent)) is not None:
                ready["ceiling"] = prepared
        return ready

    def output(self, who) -> Path:
        return self.options.scratch / f"result-{who.replace('/', '_').replace(' ', '_')}.npy"

    def compare(self, case, ready, absent):
        """{peer: largest difference from the subject, of its largest value}; who is wrong does not run."""
        if case.tolerance is None or case.subject not in ready:
            return {}
        import numpy as np
        found, ours = {}, self._load(np, case.subject)
        for who in [who for who in case.peers if who in ready]:
            theirs = self._load(np, who)
            if ours is None or theirs is None:
                continue
            if ours.shape != theirs.shape:
                absent[who] = "its result has another shape than Mica's"
            else:
                scale = max(float(np.abs(ours).max(initial=0)), 1e-30)
                found[who] = float(np.abs(ours - theirs).max(initial=0)) / scale
                if not found[who] <= case.tolerance:
                    absent[who] = f"its result differs by {found[who]:.2g} of the largest value from Mica's"
            if who in absent:
                ready.pop(who)[0].ask({"release": True})
        return found

    def _load(self, np, who):
        path = self.output(who)
        if not path.exists():
            return None
        value = np.load(path)
        path.unlink()
        return value

    def hopeless(self, case, ready):
        """Who is so slow that one round says all."""
        least = max(LONG, HOPELESS * ready[case.subject][1]["seconds"])
        return {who for who, (_, reply) in ready.items() if who in case.peers and reply["seconds"] > least}

    def rounds(self, case, ready, absent):
        """{participant: [seconds of each round]}; each round starts with the next one. The fastest call
        of all goes into the participant's reply."""
        taken, once = {who: [] for who in ready}, self.hopeless(case, ready)
        for number in range(self.options.rounds):
            order = list(ready)
            shift = number % max(1, len(order))
            for who in order[shift:] + order[:shift]:
                if number and who in once:
                    continue
                time.sleep(SETTLE)
                try:
                    worker, reply = ready[who]
                    answer = worker.ask({"round": True})
                    taken[who].append(answer["seconds"])
                    fastest = answer.get("fastest", answer["seconds"])
                    reply["fastest"] = min(fastest, reply.get("fastest", fastest))
                except WorkerError as error:
                    absent[who] = str(error)
                    worker, _ = ready.pop(who)
                    taken.pop(who)
                    if worker.process.poll() is not None or "no answer" in str(error):
                        self.workers.drop(worker)
        return taken

    def measure(self, case):
        """The record of a case, as results.py describes it."""
        absent = {}
        ready = self.prepare(case, absent)
        differences = self.compare(case, ready, absent)
        replies = {who: reply for who, (_, reply) in ready.items()}
        taken = self.rounds(case, ready, absent) if case.subject in ready else {}
        if "ceiling" in taken:
            reply, what = replies["ceiling"], self.ways[case.ceiling]["ceiling"]
            reply["fastest"] = reply["work"] / self.best.update(what, reply["work"] / reply["fastest"])
        for worker, _ in ready.values():
            try:
                worker.ask({"release": True})
            except WorkerError:
                self.workers.drop(worker)
        return results.record(case, taken, replies, absent, differences)


def announce(case, record):
    """One line a case while they run."""
    if "participants" not in record or case.subject not in record["participants"]:
        say(f"{case.name}: NOT MEASURED: {record['absent'].get(case.subject, 'unknown reason')}")
        return
    words = [f"{record['participants'][case.subject]['median'] * 1e3:.4g} ms"]
    words += [f"{who} {value['median']:.2f} ({value['least']:.2f})" for who, value in record["ratios"].items()]
    if "share" in record:
        words.append(f"{record['share']:.2f} of {case.ceiling}")
    words += [f"{who}: {why[:70]}" for who, why in record["absent"].items()]
    words += [f"missed {name} {goal['target']:g} ({goal['value']:.3g})" for name, goal in record["goals"].items()
              if goal["value"] is not None and not goal["met"]]
    say(f"{case.name}: " + ", ".join(words))
