"""What a program does with the installed package; NumPy is not installed beside it."""

import importlib.resources
import importlib.util

import mica
import mica.core as mx

assert importlib.util.find_spec("numpy") is None
assert mica.__version__ == mx.__version__

x = mx.array([[1.0, 2.0], [3.0, 4.0]])
assert mx.sum(x * x).item() == 30
assert mx.grad(lambda a: mx.sum(a * a))(x).tolist() == [[2, 4], [6, 8]]
assert mx.compile(lambda a: mx.exp(a) - 1)(mx.zeros((2,))).tolist() == [0, 0]
assert mx.random.uniform(key=mx.random.key(0)).shape == ()
assert "axis" in mx.softmax.__doc__
try:
    x @ mx.ones((3,))
except ValueError as error:
    assert "(2, 2)" in str(error) and "(3,)" in str(error), error
else:
    raise AssertionError("shapes that do not fit were multiplied")
assert "def softmax(" in importlib.resources.files("mica").joinpath("core/__init__.pyi").read_text()
print("mica", mica.__version__, mx.default_device())
