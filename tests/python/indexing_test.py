"""x[...], x[...] = value and x.at against NumPy."""

import mica.core as mx
import numpy as np
import pytest

SHAPE = (3, 4, 5)
VALUES = np.arange(60, dtype=np.float32).reshape(SHAPE)

INDICES = [
    0, -1, (0, 1), (0, 1, 2), ..., (..., 1), (1, ...), (0, ..., 1), None, (None, 0), (..., None),
    slice(None), slice(1, 3), slice(None, None, -1), slice(10), slice(-2, None), slice(2, 1),
    (slice(None), slice(1, None, 2)), (slice(None), 1), (1, slice(None, None, -2), None, 3),
    np.array([0, 2]), np.array([[0, 1], [2, 0]]), (slice(None), np.array([0, 3])),
    (np.array([0, 1]), np.array([1, 2])), (np.array([0, 1]), slice(None), np.array([1, 2])),
    (slice(None), np.array([0, 1]), np.array([1, 2])), (0, slice(None), np.array([1, 2])),
    (np.array([[0], [1]]), np.array([1, 2])), (..., np.array([1])), np.array([-1, 0]),
    np.array([True, False, True]), (slice(None), np.array([True, False, True, True])),
    np.int64(1), np.array([], np.int32),
]


def ours(index):
    if isinstance(index, tuple):
        return tuple(ours(part) for part in index)
    return mx.array(index) if isinstance(index, np.ndarray) else index


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_get(index):
    np.testing.assert_array_equal(np.array(mx.array(VALUES)[ours(index)]), VALUES[index])


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("whole", [True, False])
def test_set(index, whole):
    expected, array = VALUES.copy(), mx.array(VALUES)
    value = -VALUES[index] if whole else np.float32(7)
    expected[index] = value
    array[ours(index)] = mx.array(value) if whole else 7
    np.testing.assert_array_equal(np.array(array), expected)


def test_lists_and_numpy_as_indices():
    x = mx.array(VALUES)
    np.testing.assert_array_equal(np.array(x[[0, 2]]), VALUES[[0, 2]])
    np.testing.assert_array_equal(np.array(x[[[0, 1], [1, 0]]]), VALUES[[[0, 1], [1, 0]]])
    np.testing.assert_array_equal(np.array(x[np.array([0, 2])]), VALUES[[0, 2]])
    np.testing.assert_array_equal(np.array(x[mx.array(1)]), VALUES[1])
    np.testing.assert_array_equal(np.array(x[x > 30]), VALUES[VALUES > 30])


def test_set_by_mask_and_values():
    x = mx.array([1, 5, 2, 7])
    x[x > 4] = 0
    assert x.tolist() == [1, 0, 2, 0]
    x[1:] = 7.9  # takes the type of the array
    assert x.dtype == mx.int32 and x.tolist() == [1, 7, 7, 7]
    x[[0, 2]] = [9, 8]
    assert x.tolist() == [9, 7, 8, 7]
    x[...] = np.array([1, 2, 3, 4])
    assert x.tolist() == [1, 2, 3, 4]


def test_assignment_leaves_other_arrays_alone():
    x = mx.zeros((4,))
    y = x + 0
    z = x[1:3]
    x[2] = 1
    mx.eval(x, y, z)
    assert (x.tolist(), y.tolist(), z.tolist()) == ([0, 0, 1, 0], [0] * 4, [0, 0])


@pytest.mark.parametrize("index", [(0, 0, 0, 0), (..., ...), "a", 1.5, True, slice(0, 1.5), [0.5]],
                         ids=str)
def test_wrong_indices_are_value_errors(index):
    x = mx.array(VALUES)
    with pytest.raises(ValueError):
        x[index]
    if index is not True:  # x[True] = 1 sets all elements
        with pytest.raises(ValueError):
            x[index] = 1


@pytest.mark.parametrize("index", [3, -4, (0, 4), (slice(None), -5)], ids=str)
def test_out_of_range_is_an_index_error(index):
    x = mx.array(VALUES)
    with pytest.raises(IndexError):
        x[index]
    with pytest.raises(IndexError):
        x[index] = 1


def test_wrong_values():
    x = mx.array(VALUES)
    with pytest.raises(ValueError):
        x[0] = mx.ones((3,))
    with pytest.raises((TypeError, ValueError)):
        x[0] = "a"
    with pytest.raises(TypeError):
        del x[0]


def test_at():
    x = mx.zeros((4,))
    places = mx.array([0, 0, 2])
    assert x.at[places].add(1).tolist() == [2, 0, 1, 0]
    assert x.at[places].subtract(mx.array([1.0, 2.0, 3.0])).tolist() == [-3, 0, -3, 0]
    y = mx.array([8.0, 2.0, 4.0])
    assert y.at[0].multiply(3).tolist() == [24, 2, 4]
    assert y.at[mx.array([0, 0])].divide(2).tolist() == [2, 2, 4]
    assert y.at[:2].maximum(5).tolist() == [8, 5, 4]
    assert y.at[1:].minimum(3).tolist() == [8, 2, 3]
    assert x.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError):
        x.at[0, 0]


def test_iteration_ends():
    assert [row.tolist() for row in mx.arange(3)] == [0, 1, 2]
    a, b = mx.array([[1, 2], [3, 4]])
    assert a.tolist() == [1, 2] and b.tolist() == [3, 4]
    assert 3 in mx.array([1, 3])


def test_assignment_at_true_false_and_of_text():
    x = mx.arange(3)
    x[True] = 7
    x[False] = 9
    assert x.tolist() == [7, 7, 7]
    for value in ("x", b"x", {}):
        with pytest.raises(ValueError):
            x[0] = value
    with pytest.raises(TypeError):
        x[0] = None


def test_at_needs_indices():
    x = mx.arange(3)
    assert type(x.at) is type(x.at[0]) is mx.ArrayAt
    with pytest.raises(ValueError):
        x.at.add(1)
