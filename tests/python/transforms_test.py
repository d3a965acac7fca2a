"""grad, vjp, jvp, vmap, compile, checkpoint and custom_function of Python functions."""

import gc
import weakref

import mica.core as mx
import numpy as np
import pytest

A, B = mx.array([1.0, 2.0]), mx.array([3.0, 4.0])


def product(x, y):
    return (x * y).sum()


def square_sum(x):
    return (x * x).sum()


def test_grad_by_position_and_name():
    assert mx.grad(square_sum)(A).tolist() == [2, 4]
    assert mx.grad(product, argnums=[0])(A, B).tolist() == [3, 4]
    assert mx.grad(product, argnums=1)(A, B).tolist() == [1, 2]
    first, second = mx.grad(product, argnums=(0, 1))(A, B)
    assert (first.tolist(), second.tolist()) == ([3, 4], [1, 2])
    none, named = mx.grad(product, argnames="y")(A, y=B)
    assert none is None and named["y"].tolist() == [1, 2]
    first, named = mx.grad(product, argnums=0, argnames=["y"])(A, y=B)
    assert (first.tolist(), named["y"].tolist()) == ([3, 4], [1, 2])


def test_value_and_grad_of_trees():
    def loss(p, scale):
        return (p["a"] * p["b"][0]).sum() * scale, p["a"], {"aux": 3}

    (value, passed, aux), grads = mx.value_and_grad(loss)({"a": A, "b": [B, (A,)]}, 2)
    assert value.item() == 22 and passed.tolist() == [1, 2] and aux == {"aux": 3}
    assert grads["a"].tolist() == [6, 8] and grads["b"][0].tolist() == [2, 4]
    assert isinstance(grads["b"][1], tuple) and grads["b"][1][0].tolist() == [0, 0]


@pytest.mark.parametrize("call, kind", [
    (lambda: mx.grad(product, argnums=-1)(A, B), ValueError),
    (lambda: mx.grad(product, argnums=2)(A, B), ValueError),
    (lambda: mx.grad(product, argnums=(0, 0))(A, B), ValueError),
    (lambda: mx.grad(product, argnums=[], argnames=[])(A, B), ValueError),
    (lambda: mx.grad(lambda x: x)(A), ValueError),
    (lambda: mx.grad(lambda x: 3)(A), ValueError),
    (lambda: mx.grad(lambda x: (x.sum(), x))(A), ValueError),
    (lambda: mx.grad(square_sum)(3.0), ValueError),
    (lambda: mx.grad(square_sum)(), ValueError),
    (lambda: mx.grad(3), TypeError),
    (lambda: mx.grad(square_sum, argnums="a"), TypeError),
    (lambda: mx.vjp(square_sum, A, mx.array(1.0)), TypeError),
    (lambda: mx.jvp(product, [A, B], [A]), ValueError),
    (lambda: mx.vmap(product, in_axes=(0,))(A, B), ValueError),
    (lambda: mx.vmap(lambda x, k=None: x)(A, k=B), TypeError),
    (lambda: mx.vmap(square_sum)(3), ValueError),
    (lambda: mx.compile(lambda x, o: x)(A, object()), ValueError),
    (lambda: mx.compile(lambda x: x * x.item())(mx.array(1.0)), ValueError),
])
def test_wrong_uses(call, kind):
    with pytest.raises(kind):
        call()


def test_errors_of_the_function_pass_through():
    def wrong(x):
        raise KeyError("mine")

    for transformed in (mx.grad(wrong), mx.vmap(wrong), mx.compile(wrong), mx.checkpoint(wrong)):
        with pytest.raises(KeyError, match="mine"):
            transformed(A)


def test_vjp_and_jvp():
    outputs, pulled = mx.vjp(lambda x: (x, x * 2), [A], [A, B])
    assert [o.tolist() for o in outputs] == [[1, 2], [2, 4]] and pulled[0].tolist() == [7, 10]
    outputs, pushed = mx.jvp(product, [A, B], [A, B])
    assert outputs[0].item() == 11 and pushed[0].item() == 22


def test_transforms_nest():
    cube = lambda x: x * x * x  # noqa: E731
    assert mx.grad(mx.grad(cube))(mx.array(2.0)).item() == 12
    assert mx.vmap(mx.grad(cube))(A).tolist() == [3, 12]
    assert mx.grad(lambda x: mx.vmap(square_sum)(x).sum())(mx.ones((2, 3))).tolist() == [[2] * 3] * 2
    assert mx.compile(mx.grad(cube))(mx.array(2.0)).item() == 12
    assert mx.grad(mx.compile(cube))(mx.array(2.0)).item() == 12


def test_vmap_axes():
    x = mx.arange(6).reshape(2, 3).astype(mx.float32)
    assert mx.vmap(square_sum)(x).tolist() == [5, 50]
    assert mx.vmap(square_sum, in_axes=1)(x).tolist() == [9, 17, 29]
    assert mx.vmap(product, in_axes=(0, None))(x, mx.ones(3)).tolist() == [3, 12]
    pair = mx.vmap(lambda v: (v, {"again": v}), out_axes=(0, 1))(x)
    assert pair[0].shape == (2, 3) and pair[1]["again"].shape == (3, 2)
    for axes in (0, {"a": 0}, ({"a": 0},), [{"a": 0}]):
        assert mx.vmap(lambda p: p["a"] * 2, in_axes=axes)({"a": x}).tolist() == (x * 2).tolist()
    with pytest.raises(ValueError):
        mx.vmap(lambda v: v[v > 0])(x)


def test_compile_traces_once_per_signature():
    calls = []

    @mx.compile
    def f(x, k, name=None):
        calls.append(k)
        return {"out": x * k, "rest": [x, None, name]}

    for k in (2, 2, 3, 2.0, 2):
        result = f(A, k)
        assert result["out"].tolist() == [k, 2 * k] and result["rest"][1] is None
    assert calls == [2, 3, 2.0]
    assert f(A, 2, name="n")["rest"][2] == "n" and len(calls) == 4
    f(mx.ones((3,)), 2)
    f(A.astype(mx.float16), 2)
    assert len(calls) == 6 and f.__name__ == "f" and f.__wrapped__(A, 1)["out"].tolist() == [1, 2]
    mx.disable_compile()
    try:
        f(A, 2)
        assert len(calls) == 8
    finally:
        mx.enable_compile()


def test_compile_with_state():
    state = {"w": mx.zeros((2,)), "steps": [mx.array(0)]}

    def step(x):
        state["w"] = state["w"] + x
        state["steps"][0] = state["steps"][0] + 1
        return state["w"].sum()

    compiled = mx.compile(step, inputs=state, outputs=state)
    assert [compiled(mx.array(1.0)).item() for _ in range(3)] == [2, 4, 6]
    assert state["w"].tolist() == [3, 3] and state["steps"][0].item() == 3


def test_compile_with_random_state():
    @mx.compile
    def frozen():
        return mx.random.uniform(shape=(3,))

    def draw():
        return mx.random.uniform(shape=(3,))

    compiled = mx.compile(draw, inputs=mx.random.state, outputs=mx.random.state)
    mx.random.seed(3)
    expected = [draw().tolist(), draw().tolist()]
    mx.random.seed(3)
    assert [compiled().tolist(), compiled().tolist()] == expected and expected[0] != expected[1]


def test_compile_in_a_class():
    class Model:
        def __init__(self):
            self.scale = mx.array(3.0)

        @mx.compile
        def double(x):
            return x * 2

        call = mx.compile(lambda self, x: x)

    assert Model.double(A).tolist() == [2, 4]
    with pytest.raises(ValueError):  # an object is no tree of arrays
        Model().call(A)


def test_checkpoint():
    f = lambda p: (mx.exp(p["x"]) * p["x"]).sum()  # noqa: E731
    expected = mx.grad(f)({"x": A})["x"].tolist()
    assert mx.grad(mx.checkpoint(f))({"x": A})["x"].tolist() == expected
    assert mx.checkpoint(f)({"x": A}).item() == f({"x": A}).item()


def test_custom_function():
    @mx.custom_function
    def lone(x):
        return x * 2

    @lone.vjp
    def _(primal, cotangent, output):
        return cotangent * 7

    assert mx.grad(lambda x: lone(x).sum())(A).tolist() == [7, 7] and lone(A).tolist() == [2, 4]

    @mx.custom_function
    def pair(x, y):
        return x * 2, y

    @pair.vjp
    def pair(primals, cotangents, outputs):
        assert len(primals) == len(cotangents) == len(outputs) == 2
        return cotangents[0] * 5, None

    assert mx.grad(lambda x: pair(x, B)[0].sum())(A).tolist() == [5, 5]

    @mx.custom_function
    def multiply(x, y):
        return x * y

    @multiply.jvp
    def multiply(primals, tangents):
        return tangents[0] * 3

    assert mx.jvp(multiply, [A, B], [A, B])[1][0].tolist() == [3, 6]

    @multiply.vmap
    def multiply(inputs, axes):
        assert axes == (0, None)
        return inputs[0] * inputs[1] + 1, axes[0]

    assert mx.vmap(multiply, in_axes=(0, None))(mx.ones((3, 2)), B).tolist() == [[4, 5]] * 3


def test_stop_gradient():
    assert mx.grad(lambda x: (x * mx.stop_gradient(x)).sum())(A).tolist() == [1, 2]


def test_training_goes_down():
    mx.random.seed(0)
    x = mx.random.normal((64, 4))
    target = x @ mx.array([[1.0], [-2.0], [3.0], [0.5]])
    weights = {"w": mx.zeros((4, 1)), "b": mx.zeros((1,))}
    step = mx.compile(mx.value_and_grad(
        lambda p, x, y: ((x @ p["w"] + p["b"] - y) ** 2).mean()))
    losses = []
    for _ in range(60):
        loss, grads = step(weights, x, target)
        weights = {name: value - 0.1 * grads[name] for name, value in weights.items()}
        mx.eval(weights)
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


def test_cycles_are_collected():
    class Holder:
        pass

    holder = Holder()
    holder.call = mx.compile(lambda x: (holder, x)[1])
    holder.grad = mx.grad(lambda x: (holder, x.sum())[1])
    holder.custom = mx.custom_function(lambda x: (holder, x)[1])
    assert holder.call(A).tolist() == [1, 2] and holder.grad(A).tolist() == [1, 1]
    reference = weakref.ref(holder)
    del holder
    gc.collect()
    assert reference() is None


def test_numpy_inside():
    f = lambda x: (x * np.array([2.0, 3.0])).sum()  # noqa: E731
    assert mx.grad(f)(A).tolist() == [2, 3]


@pytest.mark.parametrize("change", [lambda t: t.clear(), lambda t: t.extend([mx.ones((3,))] * 5)], ids=["less", "more"])
def test_functions_may_change_their_arguments(change):
    given = [mx.ones((2,)), mx.ones((4,))]

    def f(tree):
        first = tree[0]
        change(given)
        return first.sum()

    grads = mx.grad(f)(given)
    assert [g.tolist() for g in grads] == [[1, 1], [0, 0, 0, 0]]


def test_nesting_without_end():
    endless = []
    endless.append(endless)
    deep = mx.ones((1,))
    for _ in range(100_000):
        deep = [deep]
    for tree in (endless, deep):
        for call in (lambda t: mx.eval(t), lambda t: mx.grad(lambda x: x[0])(t), lambda t: mx.compile(lambda x: x)(t),
                     lambda t: mx.array(t), lambda t: mx.concatenate(t), lambda t: mx.vmap(lambda x: x)(t)):
            with pytest.raises(RecursionError):
                call(tree)
    named = {}
    named["self"] = named
    with pytest.raises(RecursionError):
        mx.eval(named)
