"""The page of a results file: a table for each family, peers beside Mica, goals beside what was reached."""

UNITS = {"read": "GB/s", "copy": "GB/s", "f32": "GFLOP/s", "bf16": "GFLOP/s", "f16": "GFLOP/s", "int8": "GOP/s"}


def time_text(seconds):
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def goal_text(goals):
    words = []
    for name, goal in goals.items():
        write = time_text if name == "seconds" else "{:.2f}".format
        value = "absent" if goal["value"] is None else write(goal["value"])
        bound = f"≤ {time_text(goal['target'])}" if name == "seconds" else f"≥ {goal['target']:g}"
        words.append(f"{'✓' if goal['met'] else '✗'} {name} {bound} ({value})")
    return "; ".join(words)


def row(name, found, peers):
    ours = found["participants"].get(found["subject"])
    if ours is None:
        return f"| {name} | not measured: {found['absent'].get(found['subject'], '?')} |" + " |" * (len(peers) + 3)
    spread = f"{100 * (ours['q3'] - ours['q1']) / ours['median']:.0f} %"
    cells = [name, f"{time_text(ours['median'])} ({time_text(ours['fastest'])}; {spread})"]
    for peer in peers:
        ratio = found["ratios"].get(peer)
        best = "**" if peer == found.get("best") else ""
        missing = "absent" if peer in found["absent"] else ""
        cells.append(f"{best}{ratio['median']:.2f}{best} ({ratio['least']:.2f})" if ratio else missing)
    share = found.get("share")
    unit = UNITS.get(found["ceiling"], "")
    cells.append(f"{share:.2f} of {found['ceiling']} ({found['rate'] / 1e9:.4g} of "
                 f"{found['ceiling_rate'] / 1e9:.4g} {unit})" if share else "")
    cells.append(goal_text(found["goals"]))
    return "| " + " | ".join(cells) + " |"


def family_table(family, cases):
    peers = []
    for found in cases.values():
        peers += [who for who in (*found["ratios"], *found["absent"])
                  if who not in peers and who not in (found["subject"], "ceilings")]
    head = ["case", "Mica: median (fastest call; interquartile range)", *peers, "share of the ceiling", "goals"]
    lines = [f"## {family}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [row(name, found, peers) for name, found in cases.items()]
    notes = [f"- {name}: {found['note']}" for name, found in cases.items() if found.get("note")]
    missing = {}
    for name, found in cases.items():
        for who, why in found["absent"].items():
            missing.setdefault((who, why), []).append(name)
    notes += [f"- {who} absent from {', '.join(names)}: {why}" for (who, why), names in missing.items()]
    return lines + ([""] + notes if notes else []) + [""]


def run_lines(about):
    peers = ", ".join(f"{name} {peer.get('version', 'absent')}" for name, peer in about["peers"].items())
    lines = [f"- **{about['run']}**: Mica {about['commit']}, {about['threads']} threads, {about['rounds']} rounds, "
             f"instructions: {about['isa']}, OpenMP waits: {about['wait']}, malloc: {about['malloc']}; "
             f"{about['cpu']}, {about['system']}. Peers: {peers}."]
    for ceiling in about.get("ceilings", []):
        lines.append(f"  - {ceiling['text']}")
    return lines


def page(machine, everything):
    cases = everything["cases"]
    goals = [goal for found in cases.values() for goal in found.get("goals", {}).values()]
    lines = [f"# {machine}", "",
             f"Written by `make bench`. {len(cases)} cases; {sum(goal['met'] for goal in goals)} of {len(goals)} goals "
             "met. Columns named after peers hold the peer's time divided by Mica's, the median of ratios taken round by "
             "round: above 1 Mica is faster; the best peer is bold. The share of the ceiling is that of Mica's "
             "fastest call in the ceiling's best, which is measured in turn with everyone else.", ""]
    families = {}
    for name, found in cases.items():
        families.setdefault(name.split("/")[0], {})[name] = found
    for family, members in families.items():
        lines += family_table(family, members)
    lines += ["## Runs", ""]
    for about in everything.get("runs", {}).values():
        lines += run_lines(about)
    return "\n".join(lines) + "\n"
