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
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
"""
TYPES = """\
scalar: TypeAlias = bool | int | float
StreamOrDevice: TypeAlias = Stream | Device | DeviceType | None
"""


def is_table_function(value):
    return hasattr(type(value), "__mica_parameters__")


class Stubs(StubGen):
    def put(self, value, name=None, parent=None):
        if name == "Function":
            self.write_ln("class Function:")
            self.write_ln("    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...\n")
        elif name == "bool_":  # a name of Python with an underscore, which the generator leaves out
            self.write_ln("bool_: Dtype = ...\n")
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
        self.write_ln(f"def {name}({parameters}) -> {value.__mica_returns__}:")
        self.depth += 1
        self.put_docstr(value.__doc__)
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
    public = "from mica.core import Device, DeviceType, Dtype, Stream, StreamOrDevice, array, scalar\n"
    for name, value in vars(core).items():
        if isinstance(value, types.ModuleType):
            write(value, package / "core" / f"{name}.pyi", HEADER + public)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
