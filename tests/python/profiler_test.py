"""mx.profiler: recordings and what they tell. The recording itself is tested in tests/core."""

import json
import pathlib

import mica.core as mx
import pytest

profiler = mx.profiler


def work():
    x = mx.ones((64, 32))
    mx.eval(x)
    return x @ mx.transpose(x)


def test_context_manager():
    with profiler.profile() as p:
        mx.eval(work())
    rows = {row["name"]: row for row in p.operations()}
    assert rows["matmul"]["calls"] == 1
    assert rows["matmul"]["flops"] == 2 * 64 * 64 * 32
    assert rows["matmul"]["bytes"] == 4 * (2 * 64 * 32 + 64 * 64)
    assert rows["matmul"]["slowest_call"].endswith("-> float32 (64, 64)")
    assert rows["matmul"]["seconds"] == rows["matmul"]["slowest_seconds"] > 0
    assert rows["matmul"]["share"] > 0
    assert rows["fill"]["flops"] is None
    text = p.summary()
    assert "matmul" in text and "ceilings: read" in text and "GFLOP/s" in text


def test_only_what_is_evaluated_inside():
    y = work()
    with profiler.profile() as p:
        pass
    mx.eval(y)
    assert p.operations() == []
    with profiler.profile() as p:
        z = work()
        mx.async_eval(z)
    assert "matmul" in [row["name"] for row in p.operations()]


def test_start_and_stop():
    profiler.start()
    with pytest.raises(ValueError, match="already under way"):
        profiler.start()
    mx.eval(work())
    p = profiler.stop()
    with pytest.raises(ValueError, match="nothing is being recorded"):
        profiler.stop()
    assert profiler.summary() == p.summary()
    assert "matmul" in profiler.summary()


def test_errors_end_the_recording():
    with pytest.raises(IndexError):
        with profiler.profile() as p:
            mx.eval(mx.take(mx.arange(3), mx.array([7])))
    assert isinstance(p.summary(), str)
    profiler.start()
    profiler.stop()


def test_saving(tmp_path):
    with profiler.profile() as p:
        mx.eval(work())
    for path in (str(tmp_path / "a.json"), tmp_path / "b.json"):
        p.save(path)
        events = json.loads(pathlib.Path(path).read_text())["traceEvents"]
        assert "matmul" in [e["name"] for e in events if e["ph"] == "X"]
    profiler.save(tmp_path / "c.json")
    assert (tmp_path / "c.json").read_text() == (tmp_path / "b.json").read_text()
    with pytest.raises(OSError, match="gone"):
        p.save(tmp_path / "gone" / "a.json")
    with pytest.raises(TypeError):
        p.save(3)
    with pytest.raises(ValueError):
        p.save("a\0b")


def test_a_recording_that_has_not_ended():
    with pytest.raises(ValueError, match="nothing has been recorded"):
        profiler.profile().summary()
