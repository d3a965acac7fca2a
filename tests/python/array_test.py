"""mx.array: construction, properties, conversions, operators, printing."""

import copy
import gc
import pickle
import weakref

import mica.core as mx
import numpy as np
import pytest

FLOATS = [mx.float16, mx.bfloat16, mx.float32, mx.float64]
NUMPY_TYPES = ["bool_", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
               "float16", "float32", "float64"]


@pytest.mark.parametrize("value, dtype, shape", [
    (1, mx.int32, ()), (1.5, mx.float32, ()), (True, mx.bool_, ()), (2**40, mx.int64, ()),
    ([1, 2.5], mx.float32, (2,)), ([True, 2], mx.int32, (2,)), ([True, False], mx.bool_, (2,)),
    ([], mx.float32, (0,)), ([[]], mx.float32, (1, 0)), ([2**31, 1], mx.int64, (2,)),
    ((1, 2), mx.int32, (2,)), ([[1, 2], (3, 4)], mx.int32, (2, 2)),
    (np.float64(1.5), mx.float32, ()), (np.int64(3), mx.int64, ()), (np.int8(3), mx.int8, ()),
    (np.bool_(True), mx.bool_, ()), (np.array(3), mx.int64, ()), (b"abc", mx.uint8, (3,)),
    (memoryview(b"abc"), mx.uint8, (3,)),
])
def test_types_of_construction(value, dtype, shape):
    array = mx.array(value)
    assert (array.dtype, array.shape) == (dtype, shape)
    assert array.tolist() == (np.array(value).tolist() if not isinstance(value, (bytes, memoryview))
                              else list(value))


@pytest.mark.parametrize("value", ["a", {1: 2}, ["a"], [1, "a"], [[1, 2], [3]], [[1], 2], [1, 2, []],
                                   [1, [2]], range(3),
                                   2**64])
def test_construction_refuses(value):
    with pytest.raises(ValueError):
        mx.array(value)


def test_construction_of_none_is_a_type_error():
    with pytest.raises(TypeError):
        mx.array(None)
    with pytest.raises(TypeError, match="dtype"):
        mx.array([1], dtype="float32")


def test_lists_of_arrays_are_stacked():
    array = mx.array([mx.array([1, 2]), mx.array([1.5, 2])])
    assert array.dtype == mx.float32 and array.tolist() == [[1, 2], [1.5, 2]]
    assert mx.array([mx.array([1, 2]), [3, 4]]).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError):
        mx.array([mx.array([1, 2]), mx.array([1])])


@pytest.mark.parametrize("name", NUMPY_TYPES)
def test_numpy_in_and_out(name):
    values = np.arange(24).reshape(2, 3, 4).astype(name)
    for view in (values, values.T, values[:, ::-1], values[::-1, :, ::2], values[:0], values[0, 0, 0]):
        array = mx.array(view)
        assert array.shape == view.shape
        expected = view.astype(np.float32) if name == "float64" else view
        back = np.array(array)
        assert back.dtype == expected.dtype
        np.testing.assert_array_equal(back, expected)
    assert mx.array(values, dtype=mx.float64).dtype == mx.float64


def test_numpy_array_is_copied():
    values = np.ones(3, np.float32)
    array = mx.array(values)
    values[0] = 5
    assert array.tolist() == [1, 1, 1]


def test_numpy_shares_memory():
    array = mx.arange(6).reshape(2, 3) + 0
    view = np.asarray(array)
    assert not view.flags.owndata
    np.testing.assert_array_equal(np.asarray(array.T), view.T)
    assert memoryview(array).shape == (2, 3) and memoryview(array).format == "i"
    array += 1  # the memory that NumPy sees stays as it is
    np.testing.assert_array_equal(view, np.arange(6).reshape(2, 3))
    del array
    gc.collect()
    np.testing.assert_array_equal(view, np.arange(6).reshape(2, 3))
    assert np.array(mx.broadcast_to(mx.array(1), (2, 2))).tolist() == [[1, 1], [1, 1]]


def test_dlpack_shares_memory_both_ways():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    array = mx.from_dlpack(values)
    values[0, 0] = 9
    assert array[0, 0].item() == 9
    np.testing.assert_array_equal(np.from_dlpack(array.T), values.T)
    assert array.__dlpack_device__() == (1, 0)
    assert mx.from_dlpack(mx.array([1.5], mx.bfloat16)).dtype == mx.bfloat16
    assert mx.from_dlpack(np.ones(2)).dtype == mx.float32
    with pytest.raises(TypeError):
        mx.from_dlpack([1, 2])


def test_bfloat16_through_dlpack():
    class Shown:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    array = mx.array([1.5, 1 / 3], mx.bfloat16)
    assert mx.array(Shown(array)).dtype == mx.bfloat16
    assert mx.from_dlpack(Shown(array)).tolist() == array.tolist()
    with pytest.raises(ValueError, match="bfloat16"):
        np.array(array)


def test_asarray():
    values = np.ones(3, np.float32)
    assert mx.asarray([1, 2]).tolist() == [1, 2]
    shared = mx.asarray(values, copy=False)
    values[1] = 4
    assert shared.tolist() == [1, 4, 1]
    with pytest.raises(ValueError):
        mx.asarray([1, 2], copy=False)
    with pytest.raises(ValueError):
        mx.asarray(values, mx.int32, copy=False)


def test_properties():
    array = mx.zeros((2, 3, 4), mx.float16)
    assert (array.shape, array.ndim, array.size) == ((2, 3, 4), 3, 24)
    assert (array.itemsize, array.nbytes, array.dtype) == (2, 48, mx.float16)
    assert array.T.shape == (4, 3, 2) and array.mT.shape == (2, 4, 3)
    assert len(array) == 2 and [row.shape for row in array] == [(3, 4), (3, 4)]
    with pytest.raises(TypeError):
        len(mx.array(1))
    with pytest.raises(TypeError):
        iter(mx.array(1))
    with pytest.raises(AttributeError):
        array.nothing


def test_scalars():
    assert mx.array(3).item() == 3 and isinstance(mx.array(3).item(), int)
    assert isinstance(mx.array(3.0).item(), float) and mx.array(True).item() is True
    assert (int(mx.array(1.5)), float(mx.array([1])), bool(mx.array([0]))) == (1, 1.0, False)
    assert [1, 2, 3][mx.array(1)] == 2
    assert mx.array(2**63 - 1, mx.uint64).item() == 2**63 - 1
    assert f"{mx.array(1.5):.2f} {mx.array(2)}" == "1.50 2"
    for wrong in (lambda: mx.zeros((2,)).item(), lambda: bool(mx.zeros((2,))),
                  lambda: int(mx.zeros((0,)))):
        with pytest.raises(ValueError):
            wrong()
    for wrong in (mx.array(3.0), mx.array([3])):
        with pytest.raises(TypeError):
            wrong.__index__()


@pytest.mark.parametrize("array, text", [
    (mx.array([1, 2, 3]), "array([1, 2, 3], dtype=int32)"),
    (mx.array([[1.5, 2], [3, 4]]), "array([[1.5, 2],\n       [3, 4]], dtype=float32)"),
    (mx.array(1.0), "array(1, dtype=float32)"),
    (mx.array([True, False]), "array([True, False], dtype=bool)"),
    (mx.array([]), "array([], dtype=float32)"),
    (mx.zeros((0, 3)), "array([], dtype=float32)"),
    (mx.zeros((2, 0)), "array([[],\n       []], dtype=float32)"),
    (mx.array([1e10, 1e-10, float("nan"), float("-inf"), 123456789.0, 1 / 3]),
     "array([1e+10, 1e-10, nan, -inf, 1.23457e+08, 0.333333], dtype=float32)"),
    (mx.array([1.5, 1 / 3], mx.bfloat16), "array([1.5, 0.333984], dtype=bfloat16)"),
    (mx.arange(10), "array([0, 1, 2, ..., 7, 8, 9], dtype=int32)"),
    (mx.zeros((1, 2, 1)), "array([[[0],\n        [0]]], dtype=float32)"),
    (mx.zeros((7, 1)), "array([[0],\n       [0],\n       [0],\n       ...,\n       [0],\n       [0],\n"
                       "       [0]], dtype=float32)"),
])
def test_text(array, text):
    assert repr(array) == text and str(array) == text


OPERATORS = ["__add__", "__sub__", "__mul__", "__truediv__", "__floordiv__", "__mod__", "__pow__",
             "__radd__", "__rsub__", "__rmul__", "__rtruediv__", "__rfloordiv__", "__rmod__",
             "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("other", [2, 2.5, True, [3.0, 1.0, 2.0]])
def test_operators(name, other):
    values = np.array([[1.0, 2.0, 4.0], [3.0, 5.0, 2.0]], np.float32)
    mine = mx.array(other) if isinstance(other, list) else other
    theirs = np.array(other, np.float32)
    result = getattr(mx.array(values), name)(mine)
    np.testing.assert_allclose(np.array(result), getattr(values, name)(theirs), rtol=1e-6)


def test_operators_on_integers():
    x = mx.array([5, -3, 2])
    assert (x & 3).tolist() == [1, 1, 2] and (x | 1).tolist() == [5, -3, 3]
    assert (x ^ 1).tolist() == [4, -4, 3] and (x << 1).tolist() == [10, -6, 4]
    assert (x >> 1).tolist() == [2, -2, 1] and (~x).tolist() == [-6, 2, -3]
    assert (1 & x).tolist() == [1, 1, 0] and (2 ** mx.array([1, 2])).tolist() == [2, 4]
    assert (-x).tolist() == [-5, 3, -2] and (+x).tolist() == [5, -3, 2]
    assert abs(x).tolist() == [5, 3, 2] and (x // 2).tolist() == [2, -2, 1]
    assert (~mx.array([True])).tolist() == [False]
    for wrong in (lambda: ~mx.array(1.0), lambda: mx.array(1.5) & 1, lambda: -mx.array(True)):
        with pytest.raises(ValueError):
            wrong()


def test_matrix_product():
    x, y = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32)
    np.testing.assert_allclose(np.array(mx.array(x) @ mx.array(y)), x @ y)
    with pytest.raises(TypeError):
        mx.array(x) @ 2
    with pytest.raises(ValueError):
        mx.array(x) @ mx.array(x)


@pytest.mark.parametrize("dtype, number, result", [
    (mx.int32, 1.5, mx.float32), (mx.uint8, 1, mx.uint8), (mx.uint8, 1.5, mx.float32),
    (mx.float16, 1.5, mx.float16), (mx.bfloat16, 1, mx.bfloat16), (mx.bool_, 1, mx.int32),
    (mx.float64, 1.5, mx.float64), (mx.int8, True, mx.int8), (mx.int32, np.float32(1), mx.float32),
    (mx.int32, np.int64(1), mx.int32), (mx.float16, np.ones(1), mx.float16),
    (mx.int32, np.ones(1), mx.float32), (mx.int32, np.ones(1, np.int64), mx.int32),
])
def test_weak_types(dtype, number, result):
    array = mx.array([1], dtype)
    assert (array + number).dtype == result
    assert mx.add(array, number).dtype == result
    if not isinstance(number, (np.ndarray, np.generic)):
        assert (number + array).dtype == result and mx.add(number, array).dtype == result


def test_scalars_that_do_not_fit():
    for dtype, number in [(mx.uint8, 300), (mx.uint8, -1), (mx.int32, 2**40)]:
        with pytest.raises(ValueError):
            mx.array([1], dtype) + number


def test_in_place_operators_change_the_object():
    x = mx.ones((3,))
    same = x
    x += 1
    x *= 3
    x -= mx.array(1.0)
    x /= 2
    assert same is x and same.tolist() == [2.5, 2.5, 2.5]
    x **= 2
    x //= 4
    assert same.tolist() == [1, 1, 1]


def test_operands_of_other_kinds():
    x = mx.array([1, 2])
    assert (x == "a") is False and (x != "a") is True and (x == {}) is False
    assert (x == None) is False  # noqa: E711
    for wrong in ("a", [1], {}):
        with pytest.raises(ValueError):
            x + wrong
        with pytest.raises(ValueError):
            x < wrong
    for wrong in (None, object()):
        with pytest.raises(TypeError):
            x + wrong

    class Other:
        def __radd__(self, other):
            return "reflected"

    assert x + Other() == "reflected"


def test_identity_and_copies():
    x = mx.arange(4)
    assert hash(x) == hash(x) and {x: 1}[x] == 1 and x in [x]
    for other in (copy.copy(x), copy.deepcopy(x), mx.array(x)):
        other[0] = 7
        assert other is not x and x.tolist() == [0, 1, 2, 3] and other.tolist() == [7, 1, 2, 3]
    for dtype in FLOATS + [mx.bool_, mx.int8]:
        y = mx.array([[0, 1], [1, 0]], dtype)
        back = pickle.loads(pickle.dumps(y))
        assert back.dtype == y.dtype and back.tolist() == y.tolist()
    assert pickle.loads(pickle.dumps(mx.float16)) is mx.float16
    assert pickle.loads(pickle.dumps(mx.bool_)) is mx.bool_
    reference = weakref.ref(x)
    del x
    assert reference() is None


def test_dtypes():
    assert mx.float32 == mx.float32 and mx.float32 != mx.int32 and mx.float32 != 1
    assert repr(mx.float32) == "mica.core.float32" and mx.float16.size == 2
    assert len({mx.float32, mx.float32, mx.int8}) == 2
    assert mx.issubdtype(mx.float32, mx.floating) and not mx.issubdtype(mx.int8, mx.inexact)
    assert mx.issubdtype(mx.signedinteger, mx.integer) and mx.issubdtype(mx.uint8, mx.number)
    assert (mx.iinfo(mx.int8).min, mx.iinfo(mx.int8).max) == (-128, 127)
    assert mx.iinfo(mx.uint64).max == 2**64 - 1
    assert mx.finfo(mx.float16).max == 65504 and mx.finfo(mx.bfloat16).eps == 2**-7
    with pytest.raises(ValueError):
        mx.finfo(mx.int8)
    assert mx.result_type(mx.array([1]), mx.float16) == mx.float16
    assert mx.broadcast_shapes((1, 2), (3, 1)) == (3, 2)


def test_astype_and_view():
    x = mx.array([1.5, -2.5])
    assert x.astype(mx.int32).tolist() == [1, -2]
    assert x.view(mx.int32).view(mx.float32).tolist() == [1.5, -2.5]
    with pytest.raises(TypeError):
        x.astype("float32")
    with pytest.raises(TypeError):
        x.astype(np.float32)


def test_in_place_division_of_integers_is_refused():
    x = mx.array([1, 2])
    with pytest.raises(ValueError):
        x /= 2
    x //= 2
    assert x.tolist() == [0, 1]


def test_a_list_is_no_matrix():
    with pytest.raises(TypeError):
        mx.ones((1, 1)) @ [1]
    with pytest.raises(TypeError):
        [1] @ mx.ones((1, 1))


@pytest.mark.parametrize("change", [list.clear, lambda given: given.extend([1] * 1000)], ids=["less", "more"])
def test_numbers_may_change_the_list_that_holds_them(change):
    given = []

    class Number(int):
        def __int__(self):
            change(given)
            return 1

    class Scalar(np.ndarray):
        def item(self):
            change(given)
            return 1.0

    for element in (Number(1), np.zeros(()).view(Scalar)):
        given[:] = [element] + [2] * 100
        with pytest.raises(ValueError):
            mx.array(given)
        given[:] = [element] + [2] * 100
        try:
            mx.concatenate(given)
        except TypeError:
            pass
