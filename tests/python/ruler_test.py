"""bench/run compares results before it measures; here because it takes NumPy."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
from ruler import adapters, driver, worker  # noqa: E402
from ruler.case import Case  # noqa: E402


FLOATS = [{"params": {"ceiling": "f32", "threads": 1}, "rate": 1.0}]


class Quiet:
    def ask(self, _):
        return {}


def compare(tmp_path, tolerance=0.01, **results):
    run = driver.Run(None, argparse.Namespace(scratch=tmp_path, threads=1), FLOATS)
    for who, value in results.items():
        worker.save(run.output(who), adapters.NumPy(), value)
    absent, ready = {}, {who: (Quiet(), {}) for who in results}
    case = Case("a/b", None, peers=tuple(who for who in results if who != "mica"), tolerance=tolerance)
    differences = run.compare(case, ready, absent)
    assert not list(tmp_path.iterdir())
    return differences, ready, absent


def test_who_computes_something_else_is_not_measured(tmp_path):
    x = np.array([[1.0, 2.0, 4.0]])
    differences, ready, absent = compare(tmp_path, mica=x, same=x + 0.002, other=x + 1, broken=x * np.nan)
    assert sorted(ready) == ["mica", "same"]
    assert "differs by 0.25" in absent["other"]
    assert "nan" in absent["broken"]
    assert differences["same"] == pytest.approx(0.0005, rel=1e-3)


def test_another_shape_is_another_result(tmp_path):
    x = np.ones((2, 3))
    _, ready, absent = compare(tmp_path, mica=x, turned=x.T, flat=x.ravel())
    assert list(ready) == ["mica"]
    assert "shape" in absent["flat"] and absent["turned"]


def test_trees_are_compared_leaf_by_leaf(tmp_path):
    tree = {"b": [np.ones(2), (np.zeros(1),)], "a": np.full(3, 2.0)}
    _, ready, _ = compare(tmp_path, mica=tree, same={"a": tree["a"], "b": tree["b"]})
    assert sorted(ready) == ["mica", "same"]
