"""What importing the package brings along, and the shape of the house."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import juanji as jj

HEAVY = ("PIL", "typer", "rich", "safetensors", "matplotlib", "scipy", "torch", "onnx", "llvmlite", "sklearn")
ROOT = Path(jj.__file__).parent


def test_import_loads_numpy_and_nothing_heavy():
    code = f"import sys, juanji; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_help_names_the_arguments():
    assert str(inspect.signature(jj.relu)) == "(x: 'Any') -> 'Tensor'"
    assert str(inspect.signature(jj.add)) == "(x: 'Any', y: 'Any') -> 'Tensor'"
    assert jj.add.__doc__ == "x + y."


def test_version():
    assert jj.__version__.count(".") >= 1
    with pytest.raises(AttributeError, match="no attribute 'strange'"):
        _ = jj.strange


def test_one_thing_has_one_name():
    for name in ("exp", "log", "tanh", "conv", "relu", "matmul", "sum", "where"):
        assert getattr(jj, name) is getattr(jj.ops, name)


def test_no_function_is_private_to_linux():
    """A module that only POSIX has is imported nowhere, but beside the one that Windows has for the same."""
    posix = {"fcntl", "resource", "pwd", "grp", "termios", "posix"}
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not imported & posix or "msvcrt" in imported, path


def test_every_file_says_what_it_is_for():
    for path in ROOT.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no first line"


def test_files_are_called_so_everywhere():
    """Whatever reads or writes one takes it as `file`."""
    functions = [getattr(jj.interop, name) for name in jj.interop.__all__ if name[0].islower()]
    named = {name for function in functions for name in inspect.signature(function).parameters}
    assert "file" in named
    assert not named & {"path", "filename", "where"}
