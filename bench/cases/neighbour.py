"""Beside one busy process: what is left of the quiet speed. On two processors an even share leaves half to
work that uses both, and what spins or waits at barriers falls far below."""

from dataclasses import replace

from . import attention, elementwise, matmul, rows

LIBRARIES = ("mica", "torch")


def beside(case, library):
    """A library beside the neighbour against itself in quiet; goals are Mica's alone."""
    quiet = f"{library} quiet"
    argv = ["{python}", "-m", "ruler.worker", library]
    name = case.name.replace("/", "-")
    return replace(case, name=f"neighbour/{library}/{name}", subject=library, peers=(quiet,), ceiling=None, work=None,
                   goals={quiet: 0.45} if library == "mica" else {}, seconds=1.0,
                   commands={library: [*argv, "beside"], quiet: argv},
                   note="the ratio is the share of the quiet speed")


def named(family, name):
    [case] = [case for case in family.CASES if case.name == name]
    return case


WORK = (named(matmul, "matmul/float32/1024"), named(rows, "rows/softmax/float32/4096x4096"),
        named(elementwise, "elementwise/five/float32/16M"),
        named(attention, "attention/causal/float32/2048x8x64"))
CASES = [beside(case, library) for case in WORK for library in LIBRARIES]
