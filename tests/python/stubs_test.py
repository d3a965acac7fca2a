"""The type stubs name everything that is public, and nothing else."""

import ast
import builtins
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
    imported = {n for node in tree.body if isinstance(node, ast.ImportFrom) for n in names_of([node])}
    for n in stubbed - imported - {"StreamOrDevice", "scalar"}:
        assert n.startswith("_") or hasattr(module, n), n


@pytest.mark.parametrize("name", MODULES)
def test_annotations_name_what_the_stub_defines(name):
    tree = ast.parse((FOLDER / f"{name}.pyi").read_text())
    defined = set(names_of(tree.body)) | set(dir(builtins))
    defined |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    for scope in [tree] + [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        inside = set(names_of(scope.body))
        for function in (node for node in scope.body if isinstance(node, ast.FunctionDef)):
            used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
            assert used <= defined | inside, function.name


def test_operators_have_types():
    tree = ast.parse((FOLDER / "__init__.pyi").read_text())
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "array").body
    results = {n.name: ast.unparse(n.returns) if n.returns else None for n in body if isinstance(n, ast.FunctionDef)}
    for name in ("__add__", "__rsub__", "__imatmul__", "__pow__", "__ipow__", "__neg__", "__lt__", "__getitem__"):
        assert results[name] == "array", name
    assert results["__bool__"] == "bool" and results["__iter__"] == "Iterator[array]"
    assert [name for name, result in results.items() if result is None] == []


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
