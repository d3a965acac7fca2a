"""Writes the type stubs of mica.core beside the extension: make_stubs.py <folder of the package>.

Classes and bound functions come from nanobind's stub generator, functions of the Function table
from their own signatures.
"""

import importlib
import sys
import types
from pathlib import Path

from nanobind.stubgen import StubGen

HEADER = """\
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias
"""
TYPES = """\
scalar: TypeAlias = bool | int | float
StreamOrDevice: TypeAlias = Stream | Device | DeviceType | None
"""

# The array's type slots, of which Python tells no types.
OPERATORS = {
    **dict.fromkeys(("__neg__", "__pos__", "__abs__", "__invert__"), "(self) -> array"),
    **dict.fromkeys((f"__{kind}{name}__" for kind in ("", "r", "i")
                     for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or",
                                  "xor", "lshift", "rshift")), "(self, value: Any, /) -> array"),
    **dict.fromkeys(("__lt__", "__le__", "__gt__", "__ge__"), "(self, value: Any, /) -> array"),
    # Of the same shape in all classes; an array, or a bool beside what is no operand.
    **dict.fromkeys(("__eq__", "__ne__"), "(self, value: object, /) -> Any"),
    "__bool__": "(self) -> bool",
    "__len__": "(self) -> int",
    "__hash__": "(self) -> int",
    "__iter__": "(self) -> Iterator[array]",
    "__getitem__": "(self, key: Any, /) -> array",
    "__setitem__": "(self, key: Any, value: Any, /) -> None",
    "__buffer__": "(self, flags: int, /) -> memoryview",  # from Python 3.12 on
    "__release_buffer__": "(self, buffer: memoryview, /) -> None",
}

# Functions in C, of which Python tells no types.
FUNCTIONS = {"eval": "(*args: Any) -> None"}


def is_table_function(value):
    return hasattr(type(value), "__mica_parameters__")


class Stubs(StubGen):
    def put(self, value, name=None, parent=None):
        if name == "Function":
            self.write_ln("class Function:")
            self.write_ln("    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...\n")
        elif name == "bool_":  # a name of Python with an underscore, which the generator leaves out
            self.write_ln("bool_: Dtype = ...\n")
        elif getattr(parent, "__name__", "") == "array" and name == "__delitem__":
            pass  # the slot of __setitem__ brings it; it always raises
        elif getattr(parent, "__name__", "") == "array" and name in OPERATORS:
            self.write_ln(f"def {name}{OPERATORS[name]}: ...\n")
        elif name in FUNCTIONS and isinstance(value, types.BuiltinFunctionType):
            self.put_signature(name, FUNCTIONS[name], value.__doc__)
        elif is_table_function(value):
            self.put_table_function(value, name, method=isinstance(parent, type))
        else:
            super().put(value, name, parent)

    def put_table_function(self, value, name, method):
        parameters = value.__mica_parameters__
        if method:
            first, _, rest = parameters.partition(", ")
            rest = rest.removeprefix("/, ")
            if name in ("reshape", "transpose", "permute_dims"):  # x.reshape(2, 3)
                rest = "*" + rest.split(": ")[0] + ": int | Sequence[int], stream: StreamOrDevice = None"
            parameters = "self, " + rest
        self.put_signature(name, f"({parameters}) -> {value.__mica_returns__}", value.__doc__)

    def put_signature(self, name, signature, doc):
        self.write_ln(f"def {name}{signature}:")
        self.depth += 1
        self.put_docstr(doc)
        self.depth -= 1
        self.write("\n")


def write(module, path, header):
    stubs = Stubs(module=module)
    stubs.put(module)
    text = stubs.get()
    path.parent.mkdir(parents=True, exist_ok=True)
    quotes = text.find('"""', 3) + 3 if text.startswith('"""') else 0
    path.write_text(text[:quotes] + "\n\n" * bool(quotes) + header + "\n" + text[quotes:])


def main(package):
    sys.path.insert(0, str(package.parent))
    core = importlib.import_module("mica.core")
    write(core, package / "core" / "__init__.pyi", HEADER + "\n" + TYPES)
    dtypes = sorted(repr(value).rpartition(".")[2] for value in vars(core).values() if type(value) is core.Dtype)
    names = ["Device", "DeviceType", "Dtype", "Stream", "StreamOrDevice", "array", "scalar"]
    public = f"from mica.core import {', '.join(names + [name for name in dtypes if name != 'bool'])}\n"
    for name, value in vars(core).items():
        if isinstance(value, types.ModuleType):
            write(value, package / "core" / f"{name}.pyi", HEADER + public)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
