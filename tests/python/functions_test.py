"""The functions of the table: presence, documentation, argument binding, errors."""

import inspect
import pickle
import types

import mica.core as mx
import numpy as np
import pytest


def modules():
    yield mx
    for value in vars(mx).values():
        if isinstance(value, types.ModuleType):
            yield value


FUNCTIONS = [(module, name, value) for module in modules() for name, value in vars(module).items()
             if isinstance(value, mx.Function)]


def test_there_are_functions():
    assert len(FUNCTIONS) > 150
    assert {"add", "sum", "matmul", "softmax", "reshape", "where"} <= {name for _, name, _ in FUNCTIONS}
    assert callable(mx.fast.rms_norm) and callable(mx.random.uniform)


@pytest.mark.parametrize("module, name, function", FUNCTIONS, ids=lambda v: v if isinstance(v, str) else "")
def test_documentation_and_signature(module, name, function):
    head, _, text = function.__doc__.partition("\n\n")
    assert head.split("(")[0] and len(text.strip()) > 3, name
    assert function.__name__ == name and function.__module__ == module.__name__
    parameters = inspect.signature(function).parameters
    assert list(parameters)[-1] == "stream"
    assert parameters["stream"].kind is inspect.Parameter.KEYWORD_ONLY
    assert pickle.loads(pickle.dumps(function)) is function


def test_methods_are_the_functions():
    x = mx.array([[1.0, 2.0], [3.0, 4.0]])
    assert x.sum().item() == 10 and x.sum(1).tolist() == [3, 7]
    assert x.sum(axis=0, keepdims=True).shape == (1, 2)
    assert x.reshape(4).shape == (4,) and x.reshape(1, 4).shape == (1, 4)
    assert x.reshape((4, 1)).shape == (4, 1) and x.reshape([-1]).shape == (4,)
    assert x.transpose().tolist() == [[1, 3], [2, 4]] and x.transpose(1, 0).shape == (2, 2)
    assert x.transpose((1, 0)).tolist() == [[1, 3], [2, 4]]
    assert [part.shape for part in x.split(2)] == [(1, 2), (1, 2)]
    assert x.exp().shape == (2, 2) and x.astype(mx.int32).dtype == mx.int32
    assert mx.array.sum(x).item() == 10
    assert x.max().item() == 4 and x.argmax(axis=1).tolist() == [1, 1]


def test_binding():
    x = mx.arange(6).reshape(2, 3)
    assert mx.sum(x, 0, False).tolist() == mx.sum(x, axis=0).tolist() == [3, 5, 7]
    assert mx.sum(x, axis=[0, 1]).item() == mx.sum(x, axis=(0, 1)).item() == 15
    assert mx.add(a=x, b=1).tolist() == (x + 1).tolist()
    assert mx.concatenate([x, x], axis=1).shape == (2, 6) and mx.concatenate((x, x)).shape == (4, 3)
    assert mx.stack([x, x], axis=-1).shape == (2, 3, 2)
    assert [g.shape for g in mx.meshgrid(mx.arange(2), mx.arange(3), indexing="ij")] == [(2, 3)] * 2
    assert [g.shape for g in mx.broadcast_arrays(mx.array(1), x)] == [(2, 3)] * 2
    assert mx.pad(x, [(0, 0), (1, 1)]).shape == (2, 5) and mx.pad(x, 1).shape == (4, 5)
    assert mx.tensordot(x.astype(mx.float32), x.astype(mx.float32), [[0], [0]]).shape == (3, 3)
    assert mx.zeros(3).shape == (3,) and mx.zeros([2, 1], mx.int32).dtype == mx.int32
    assert mx.full((2,), 1.5).tolist() == [1.5, 1.5] and mx.full(2, mx.array(1)).dtype == mx.int32
    assert mx.arange(3).dtype == mx.int32 and mx.arange(1, 2, 0.5).tolist() == [1, 1.5]
    assert mx.arange(3.0).dtype == mx.float32
    assert mx.expand_dims(x, (0, 1)).shape == (1, 1, 2, 3)
    assert mx.take(x, mx.array([0, 1]), axis=1).shape == (2, 2)
    quotient, rest = mx.divmod(x, 4)
    assert quotient.tolist()[1] == [0, 1, 1] and rest.tolist()[1] == [3, 0, 1]
    assert isinstance(mx.split(x, 3, axis=1), list)
    assert mx.where(x > 2, x, float("-inf")).dtype == mx.float32
    assert mx.where(True, 1, 2).item() == 1 and mx.maximum(1.5, x).dtype == mx.float32
    assert mx.exp(2).dtype == mx.float32 and mx.sqrt(4.0).item() == 2
    assert mx.clip(x, None, 2.5).dtype == mx.float32
    assert mx.exp(np.zeros(2)).tolist() == [1, 1]
    assert mx.sum(x, stream=mx.cpu).item() == 15
    assert mx.add(x, 1, stream=mx.default_stream(mx.cpu)).shape == (2, 3)
    assert mx.concat is not mx.concatenate and mx.concat([x]).shape == (2, 3)


@pytest.mark.parametrize("call, words", [
    (lambda x: mx.sum(), "sum.*'a'"),
    (lambda x: mx.add(x), "add.*'b'"),
    (lambda x: mx.sum(a=x), "sum.*'a'"),
    (lambda x: mx.sum(x, foo=1), "sum.*'foo'"),
    (lambda x: mx.sum(x, 0, axis=0), "sum.*'axis'"),
    (lambda x: mx.sum(x, 0, False, 1), "sum.*positional"),
    (lambda x: mx.sum(x, axis="a"), "sum.*'axis'"),
    (lambda x: x.sum(axis="a"), "sum.*'axis'"),
    (lambda x: mx.sum(3), "sum.*'a'"),
    (lambda x: mx.add(x, 1, stream=3), "stream"),
    (lambda x: mx.zeros("a"), "zeros.*'shape'"),
    (lambda x: mx.zeros(2, dtype=3), "zeros.*'dtype'"),
    (lambda x: mx.concatenate([x, 1]), "concatenate.*'arrays'"),
    (lambda x: mx.softmax(x, 0, True), "softmax.*positional"),
])
def test_wrong_arguments_are_type_errors(call, words):
    with pytest.raises(TypeError, match=words):
        call(mx.ones((2, 2)))


@pytest.mark.parametrize("call, kind", [
    (lambda x: mx.reshape(x, (3,)), ValueError),
    (lambda x: mx.matmul(x, mx.ones((3, 3))), ValueError),
    (lambda x: mx.broadcast_to(x, (3, 3)), ValueError),
    (lambda x: mx.sum(x, axis=4), IndexError),
    (lambda x: mx.softmax(x, axis=7), IndexError),
    (lambda x: mx.concatenate([x, x], axis=9), IndexError),
    (lambda x: mx.add(x, mx.ones((3,))), ValueError),
    (lambda x: mx.zeros((-1,)), ValueError),
])
def test_errors_of_the_library(call, kind):
    with pytest.raises(kind):
        call(mx.ones((2, 2)))


def test_random_is_reproducible():
    mx.random.seed(7)
    first = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(7)
    assert mx.random.uniform(shape=(4,)).tolist() == first
    key = mx.random.key(0)
    assert mx.random.normal((3,), key=key).tolist() == mx.random.normal((3,), key=key).tolist()


def test_one_array_for_one_and_lists_for_several():
    x, y = mx.array(1.0), mx.array([1.0, 2.0])
    assert mx.atleast_1d(x).shape == (1,) and mx.atleast_2d(y).shape == (1, 2) and mx.atleast_3d(y).shape == (1, 2, 1)
    assert [a.shape for a in mx.atleast_2d(x, y)] == [(1, 1), (1, 2)]
    assert mx.depends(x, [y]).item() == 1 and [a.shape for a in mx.depends([x, y], x)] == [(), (2,)]
    assert type(mx.meshgrid(y, y)) is tuple and type(mx.divmod(y, 2)) is list
    assert type(mx.quantize(mx.ones((2, 64)))) is list
    with pytest.raises(TypeError):
        mx.depends(3, x)


def test_types_an_operation_does_not_take_are_value_errors():
    floats, ints = mx.array([1.0]), mx.array([[1, 2]])
    for call in (lambda: mx.bitwise_and(floats, 1), lambda: mx.negative(mx.array(True)), lambda: mx.abs("x"),
                 lambda: mx.add([1, 2], floats), lambda: mx.abs(object()), lambda: mx.fast.rms_norm(ints, None, 1e-5),
                 lambda: mx.fast.rope(mx.zeros((1, 1, 2, 4), mx.int32), 4, traditional=False, base=1e4, scale=1.0,
                                      offset=0)):
        with pytest.raises(ValueError):
            call()


def test_scalars_do_not_take_the_type_of_a_key():
    key = mx.random.key(7)
    uniform = mx.random.uniform(-1, 1, (1000,), key=key)
    assert uniform.dtype == mx.float32 and -1 <= uniform.min().item() < -0.9 and 0.9 < uniform.max().item() < 1
    integers = mx.random.randint(-5, 5, (1000,), key=key)
    assert integers.dtype == mx.int32 and integers.min().item() == -5 and integers.max().item() == 4
    assert mx.random.truncated_normal(-1, 1, (100,), key=key).min().item() < 0


def test_the_random_state_is_a_list_of_one_key():
    mx.random.seed(3)
    assert len(mx.random.state) == 1 and [k.tolist() for k in mx.random.state] == [[0, 3]]
    key = mx.random.state[0]
    first = mx.random.uniform()
    mx.random.state[0] = key
    assert mx.random.uniform().item() == first.item()
    with pytest.raises(IndexError):
        mx.random.state[1]
    with pytest.raises(TypeError):
        mx.random.state[0] = 3


def test_ranges_of_wide_integers():
    x = mx.arange(2**33, 2**33 + 3)
    assert x.dtype == mx.int64 and x.tolist() == [2**33, 2**33 + 1, 2**33 + 2]
    assert mx.arange(3).dtype == mx.int32


def test_names_of_the_array_api():
    assert mx.acos(1.0).item() == 0 and mx.atan2(mx.array(0.0), 1.0).item() == 0 and mx.pow(mx.array(2.0), 3).item() == 8
    assert mx.bitwise_left_shift(mx.array(1), 3).item() == 8 and mx.cumulative_sum(mx.arange(4)).tolist() == [0, 1, 3, 6]
    assert mx.empty((2, 3)).shape == (2, 3) and mx.empty_like(mx.arange(2)).dtype == mx.int32
    assert mx.isdtype(mx.int8, "signed integer") and not mx.isdtype(mx.uint8, "signed integer")
    assert mx.isdtype(mx.float16, ("integral", "real floating")) and mx.isdtype(mx.bool_, "bool")
    assert not mx.isdtype(mx.bool_, "numeric") and mx.isdtype(mx.float16, mx.float16)
    with pytest.raises(ValueError):
        mx.isdtype(mx.int8, "odd")
    assert mx.can_cast(mx.int8, mx.int16) and not mx.can_cast(mx.array(1.0), mx.float16)
    with pytest.raises(ValueError):
        mx.can_cast(1, mx.int8)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 1, 4)])
def test_derived_functions_are_numpys(shape):
    values = np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)
    other = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    x, y = mx.array(values), mx.array(other)
    for axis in (None, 0, -1):
        assert np.array_equal(mx.count_nonzero(x, axis=axis), np.count_nonzero(values, axis=axis))
        np.testing.assert_allclose(mx.median(x, axis=axis), np.median(values, axis=axis))
        low, high = mx.minmax(x, axis=axis, keepdims=True)
        assert np.array_equal(low, values.min(axis=axis, keepdims=True)) and np.array_equal(high, values.max(axis=axis, keepdims=True))
    np.testing.assert_allclose(mx.diff(x, 2, axis=0), np.diff(values, 2, axis=0))
    np.testing.assert_allclose(mx.kron(x, y), np.kron(values, other), rtol=1e-6)
    np.testing.assert_allclose(mx.vecdot(x, y), np.sum(values * other, axis=-1), rtol=1e-5, atol=1e-5)
    assert np.array_equal(mx.logical_xor(x, y > 0), np.logical_xor(values, other > 0))
    assert np.array_equal(mx.trunc(y * 3), np.trunc(other * 3)) and mx.positive(x).tolist() == values.tolist()
    for mine, numpys in zip(mx.unstack(x, axis=-1), np.moveaxis(values, -1, 0), strict=True):
        assert np.array_equal(mine, numpys)
    if len(shape) > 1:
        assert np.array_equal(mx.matrix_transpose(x), np.swapaxes(values, -1, -2))
    else:
        with pytest.raises(ValueError):
            mx.matrix_transpose(x)
