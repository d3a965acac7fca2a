"""What is measured: cases, the kinds of work that they are made of, and finding them.

A case is one row of the results. Its kind says how each library does the work; a file of bench/cases is a
family and names its cases in CASES:

    class Exp(Kind):
        def inputs(self, rng, n):
            return [rng.standard_normal(n)]
        def mx(self, mx, n):           # for mica and mlx; `mica` or `mlx` override it
            return mx.exp
        def torch(self, torch, n):     # for torch and torch.compile
            return torch.exp

    CASES = [Case("exp/16M", Exp, dict(n=1 << 24), peers=("torch", "mlx"), work=8 << 24, ceiling="copy",
                  goals={"best": 1.0, "ceiling": 0.85})]

Files of this folder that the driver imports must not import the peers: only workers do.
"""

import fnmatch
import importlib
from dataclasses import dataclass, field

from .places import BENCH

CEILINGS = ("read", "copy", "f32", "int8", "bf16", "f16")


class Kind:
    """How libraries do one thing. A method named after a library gets its module (torch gets torch, jax
    gets jax, numpy numpy, openblas a CDLL, mx either mica.core or mlx.core) and the case's parameters,
    and returns a function of the inputs. `inputs` gives NumPy arrays, the same for all; float32 ones reach
    a library in the parameter `dtype` ("float32" without one)."""

    def inputs(self, rng, **params):
        return []


@dataclass(frozen=True)
class Case:
    name: str  # family/what/size
    kind: type | None  # None: every participant is a program of `commands`
    params: dict = field(default_factory=dict)
    peers: tuple = ()
    work: float | None = None  # operations or bytes of one call, in units of the ceiling
    ceiling: str | None = None  # of CEILINGS
    goals: dict = field(default_factory=dict)  # {"best" | participant | "ceiling": at least, "seconds": at most}
    tolerance: float | None = 1e-4  # of the largest value; None: results are not compared
    seconds: float = 0.1  # a round is at least this long
    subject: str = "mica"  # whom the ratios are about
    commands: dict = field(default_factory=dict)  # {participant: argv} of workers that are other programs
    note: str = ""

    @property
    def participants(self):
        return (self.subject, *self.peers)

    def request(self, seconds=None):
        """What a worker is asked to prepare."""
        kind = f"{self.kind.__module__}:{self.kind.__qualname__}" if self.kind else None
        return {"case": self.name, "kind": kind, "params": self.params, "seconds": seconds or self.seconds}


def check(case):
    """Mistakes in a declaration, before hours of measuring."""
    if case.ceiling is not None and case.ceiling not in CEILINGS:
        raise ValueError(f"{case.name}: no ceiling {case.ceiling!r}; there are {', '.join(CEILINGS)}")
    unknown = set(case.goals) - {"best", "ceiling", "seconds", *case.peers}
    if unknown:
        raise ValueError(f"{case.name}: a goal against {unknown.pop()!r}, which takes no part")
    if "ceiling" in case.goals and case.ceiling is None:
        raise ValueError(f"{case.name}: a goal against a ceiling that is not named")


def all_cases():
    """Every case of every family, in the order of the files' names."""
    found = {}
    for path in sorted((BENCH / "cases").glob("[!_]*.py")):
        for case in importlib.import_module(f"cases.{path.stem}").CASES:
            check(case)
            if case.name in found:
                raise ValueError(f"two cases are named {case.name}")
            found[case.name] = case
    return list(found.values())


def matching(cases, patterns):
    """Those whose name contains a pattern or matches it as a wildcard; all for no pattern."""
    return [case for case in cases
            if not patterns or any(p in case.name or fnmatch.fnmatchcase(case.name, p) for p in patterns)]
