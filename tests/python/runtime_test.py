"""Evaluation, devices, memory, counters, threads, leaks."""

import gc
import pickle
import subprocess
import sys
import threading

import mica.core as mx
import numpy as np
import pytest


def test_eval_takes_trees():
    x = mx.arange(3) + 1
    mx.eval(x, {"a": [x * 2]}, None, 3, "s")
    mx.eval()
    y = x * 3
    mx.async_eval({"y": y})
    mx.synchronize()
    assert y.tolist() == [3, 6, 9]


def test_errors_come_from_eval():
    x = mx.take(mx.arange(3), mx.array([7]))
    with pytest.raises(IndexError):
        mx.eval(x)
    assert (mx.arange(3) + 1).tolist() == [1, 2, 3]


def test_devices():
    assert repr(mx.Device(mx.cpu)) == "Device(cpu, 0)" and mx.Device(mx.cpu) == mx.cpu
    assert mx.default_device() == mx.cpu and mx.default_device().type == mx.cpu
    assert mx.is_available(mx.cpu) and mx.is_available(mx.ref) and not mx.is_available(mx.gpu)
    with pytest.raises(ValueError):
        mx.set_default_device(mx.gpu)
    with pytest.raises(TypeError):
        mx.set_default_device(3)
    with pytest.raises(TypeError):
        mx.Device("cpu")
    assert not mx.metal.is_available() and not mx.cuda.is_available()
    stream = mx.new_stream(mx.cpu)
    assert stream != mx.default_stream(mx.cpu) and stream.device == mx.cpu
    with mx.stream(stream):
        assert mx.default_stream(mx.cpu) == stream
    with mx.stream(mx.ref):
        assert mx.default_device() == mx.ref
        on_ref = mx.exp(mx.array([1.0, 2.0]))
        mx.eval(on_ref)
    assert mx.default_device() == mx.cpu
    np.testing.assert_allclose(np.array(on_ref), np.exp([1.0, 2.0]), rtol=1e-6)
    assert mx.exp(mx.array(0.0), stream=mx.ref).item() == 1


def test_counters():
    x = mx.ones((100,))
    mx.eval(x)
    mx.reset_counters()
    mx.eval(mx.exp(x * 2 + 1) - x)
    assert mx.counters()["kernels"] == 1
    assert set(mx.counters()) >= {"plan_misses", "bytes_copied", "bytes_moved", "nodes", "lowered"}


def test_memory():
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    x = mx.zeros((1 << 20,)) + 1
    mx.eval(x)
    assert mx.get_active_memory() - before >= 4 << 20 and mx.get_peak_memory() >= 4 << 20
    del x
    assert mx.get_active_memory() - before < 1 << 20
    assert mx.get_cache_memory() >= 0
    mx.clear_cache()
    assert mx.get_cache_memory() == 0
    limit = mx.set_memory_limit(mx.get_active_memory() + (1 << 20))
    try:
        with pytest.raises(MemoryError):
            mx.eval(mx.zeros((1 << 24,)) + 1)
    finally:
        mx.set_memory_limit(limit)
    mx.set_cache_limit(mx.set_cache_limit(1 << 30))
    assert mx.get_memory_limit() == limit
    for set_limit in (mx.set_memory_limit, mx.set_cache_limit):
        with pytest.raises(TypeError):
            set_limit(-1)


def test_threads_share_arrays():
    shared = mx.ones((64, 64)) * 2
    total = mx.sum(shared @ shared)
    results, errors = [], []

    def work(number):
        try:
            for _ in range(20):
                x = shared * number + total
                results.append((number, (x.sum() / x.size).item()))
                mx.grad(lambda a: (a * a).sum())(mx.ones((8,)))
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(results) == 80
    expected = total.item()
    assert all(abs(value - (2 * number + expected)) < 1e-2 * expected for number, value in results)


def test_threads_change_a_handle_that_others_read():
    x = mx.zeros((64,))
    done, errors = threading.Event(), []

    def until_done(work):
        try:
            while not done.is_set():
                work()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    def change():
        nonlocal x
        x += 1
        x[0] = 2
        mx.eval(x)

    def read():
        x.tolist(), repr(x), bytes(memoryview(x)), x[3].item(), pickle.dumps(x), np.from_dlpack(x)

    threads = [threading.Thread(target=until_done, args=(work,)) for work in (change, read, read, change)]
    for thread in threads:
        thread.start()
    done.wait(0.5)
    done.set()
    for thread in threads:
        thread.join()
    assert not errors


def test_the_interpreter_runs_while_arrays_are_computed():
    x = mx.random.normal((700, 700))
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(1)
            done.wait(0.0005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    for _ in range(12):
        x = x @ x / 700
    before = len(ticks)
    mx.eval(x)
    after = len(ticks)
    done.set()
    ticker.join()
    assert after > before


@pytest.mark.parametrize("work", ["mx.eval(x @ x)", "mx.grad(lambda a: (a @ a).sum())(x)"])
def test_daemon_threads_end_with_the_interpreter(work):
    program = f"""
import threading, time
import mica.core as mx
x = mx.ones((200, 200))
mx.eval(x)
def forever():
    while True:
        {work}
for _ in range(4):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
"""
    for _ in range(5):
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_memory_of_other_libraries_is_released():
    for share in (mx.array, mx.from_dlpack):
        values = np.ones(1000, np.float32)
        count = sys.getrefcount(values)
        array = share(values)
        result = array + 1
        mx.eval(result)
        del array
        gc.collect()
        assert sys.getrefcount(values) == count


def test_no_leaks():
    def work():
        x = mx.ones((10, 10))
        f = mx.compile(lambda a: mx.exp(a) + 1)
        mx.eval(f(x), mx.grad(lambda a: (a @ a).sum())(x), mx.vmap(lambda a: a * 2)(x))
        x[0] = 3
        x.at[1].add(2)
        np.array(x + 1)
        x.tolist()
        try:
            mx.sum(x, axis=9)
        except IndexError:
            pass

    for _ in range(20):
        work()
    gc.collect()
    objects, memory = len(gc.get_objects()), mx.get_active_memory()
    blocks = sys.getallocatedblocks()
    for _ in range(200):
        work()
    gc.collect()
    assert len(gc.get_objects()) - objects < 50
    assert mx.get_active_memory() == memory
    assert sys.getallocatedblocks() - blocks < 400
