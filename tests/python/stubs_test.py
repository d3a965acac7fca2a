"""The type stubs name everything that is public, and nothing else."""

import ast
import types
from pathlib import Path

import mica
import mica.core as mx
import pytest

FOLDER = Path(mx.__file__).parent / "core"
MODULES = {"__init__": mx} | {name: value for name, value in vars(mx).items()
                              if isinstance(value, types.ModuleType)}


def names_of(body):
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets)
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


@pytest.mark.parametrize("name", MODULES)
def test_stub_is_complete(name):
    module, tree = MODULES[name], ast.parse((FOLDER / f"{name}.pyi").read_text())
    stubbed = set(names_of(tree.body))
    public = {n for n in vars(module) if not n.startswith("_")}
    assert public - stubbed == set()
    helpers = {"Any", "Callable", "Sequence", "TypeAlias", "StreamOrDevice", "scalar", "overload",
               "enum", "types"}
    imported = {"Device", "DeviceType", "Dtype", "Stream", "array"}
    for n in stubbed - helpers - imported:
        assert n.startswith("_") or hasattr(module, n), n


def test_methods_are_in_the_stub():
    tree = ast.parse((FOLDER / "__init__.pyi").read_text())
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "array").body
    public = {n for n in vars(mx.array) if not n.startswith("_")}
    assert public - set(names_of(body)) == set()


def test_public_things_are_documented():
    for name, module in MODULES.items():
        assert module.__doc__
        for n, value in vars(module).items():
            if callable(value) and not n.startswith("_"):
                assert value.__doc__, f"{name}.{n}"


def test_package():
    assert mica.__version__ == mx.__version__
    assert (Path(mica.__file__).parent / "py.typed").exists()
    assert mx.newaxis is None and mx.pi > 3.14 and mx.inf > 1e300 and mx.nan != mx.nan
