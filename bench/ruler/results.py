"""What a run leaves: bench/results/<machine>.json, merged case by case, and the same as a page.

A record of a case:

    participants  {name: {min, median, q1, q3, rounds, fastest, repetitions, info}}   seconds of one call;
                  `fastest` a single one, the others are means of a round
    ratios        {peer: {min, median, max, least}}   peer's seconds / the subject's, round by round;
                  `least` that of the fastest calls, which neighbours on the machine move less
    best          the peer with the smallest median
    share         the subject's fastest call over the ceiling's, of the same rounds: what a neighbour takes
                  from either does not count; `shares` {min, median, max} of it round by round
    rate          what the subject reached at best, per second; `ceiling_rate` the ceiling
    goals         {name: {target, value, met}}
    absent        {peer: why}
    differences   {peer: largest difference from the subject's result, of its largest value}
"""

import json
import os
import re
import statistics
import tempfile
from pathlib import Path


FORMAT = 3  # grows when records change


def spread(values):
    """Minimum, median and quartiles."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"min": min(values), "median": statistics.median(values), "q1": low, "q3": high}


def extent(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratios_of(case, taken, fastest):
    ours = taken[case.subject]
    return {who: {**extent([b / a for a, b in zip(ours, taken[who])]), "least": fastest[who] / fastest[case.subject]}
            for who in case.peers if who in taken}


def reached(name, value, target):
    return value <= target if name == "seconds" else value >= target


def goals_of(case, found):
    """Each goal with its value; a goal against somebody absent has none and is not met."""
    values = {who: ratio["median"] for who, ratio in found["ratios"].items()}
    if case.subject in found["participants"]:
        values["seconds"] = found["participants"][case.subject]["median"]
    if found.get("best"):
        values["best"] = values[found["best"]]
    if "share" in found:
        values["ceiling"] = found["share"]
    return {name: {"target": target, "value": values.get(name),
                   "met": values.get(name) is not None and reached(name, values[name], target)}
            for name, target in case.goals.items()}


def record(case, taken, replies, absent, differences):
    found = {"params": case.params, "subject": case.subject, "note": case.note, "ceiling": case.ceiling,
             "absent": absent, "differences": differences, "ratios": {}, "participants": {}}
    fastest = {who: replies[who].get("fastest", min(seconds)) for who, seconds in taken.items()}
    for who, seconds in taken.items():
        if who != "ceiling":
            found["participants"][who] = {**spread(seconds), "rounds": seconds, "fastest": fastest[who],
                                          "repetitions": replies[who]["repetitions"],
                                          "info": replies[who].get("info", {})}
    if case.subject not in taken:
        return found
    found["ratios"] = ratios_of(case, taken, fastest)
    if found["ratios"]:
        found["best"] = min(found["ratios"], key=lambda who: found["participants"][who]["median"])
    work = replies[case.subject].get("work", case.work)
    if work and "ceiling" in taken:
        most = [replies["ceiling"]["work"] / seconds for seconds in taken["ceiling"]]
        reached = [work / seconds for seconds in taken[case.subject]]
        found["shares"] = extent([a / b for a, b in zip(reached, most)])
        found["rate"] = work / fastest[case.subject]
        found["ceiling_rate"] = replies["ceiling"]["work"] / fastest["ceiling"]
        found["share"] = found["rate"] / found["ceiling_rate"]
    found["goals"] = goals_of(case, found)
    return found


def machine_name(cpuinfo=None, cpus=None, isa="native"):
    """A name for a file: processor, instruction set, number of threads."""
    text = cpuinfo if cpuinfo is not None else Path("/proc/cpuinfo").read_text()
    field = {key.strip(): value.strip() for key, _, value in
             (line.partition(":") for line in reversed(text.splitlines()))}
    model = field.get("model name") or field.get("CPU implementer", "unknown")
    flags = field.get("flags", field.get("Features", "")).split()
    level = next((name for flag, name in (("avx512f", "avx512"), ("avx2", "avx2"), ("asimd", "neon"))
                  if flag in flags), "baseline") if isa == "native" else f"as-{isa}"
    model = re.sub(r"\((r|tm)\)|\bcpu\b|@.*|processor|\d+-core", "", model.lower())
    words = re.findall(r"[a-z0-9]+", model) + [level, str(cpus or len(os.sched_getaffinity(0)))]
    return "-".join(words)


def load(path):
    """What a file holds; nothing if it was written when records looked otherwise."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if found.get("format") == FORMAT else {"format": FORMAT, "cases": {}}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as new:
        new.write(text)
    os.chmod(new.name, 0o644)
    os.replace(new.name, path)


def merge(path, about, cases):
    """Adds the records to those of the file: a case measured again replaces itself alone. Figures of
    the run (versions, ceilings) belong to a case's run, so each record carries its run's name."""
    everything = load(path)
    everything.setdefault("runs", {})[about["run"]] = about
    for name, found in cases.items():
        everything["cases"][name] = {**found, "run": about["run"]}
    used = {found["run"] for found in everything["cases"].values()}
    everything["runs"] = {run: value for run, value in everything["runs"].items() if run in used}
    everything["cases"] = dict(sorted(everything["cases"].items()))
    write(path, json.dumps(everything, indent=1) + "\n")
    return everything
