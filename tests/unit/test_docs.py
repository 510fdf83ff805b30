"""Every example in the documentation runs, in the order of its file, and prints what the file says it prints.

A ```python block is executed statement by statement. Comment lines that follow a statement which prints are what it
must print (`...` stands for anything, spacing does not count); after a statement that prints nothing they are just
comments. All blocks of a file share one namespace and an empty working directory. Blocks of other languages are left
alone, but the `juanji` commands in a block that starts with ```console test are run.
"""

import ast
import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("README*.md")])
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```\s*?$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(text, language):
    """The fenced blocks of a language as (line number of their first line, code)."""
    for fence in FENCE.finditer(text):
        if fence[1].strip() == language:
            yield text.count("\n", 0, fence.start(2)) + 1, fence[2]


def expected_output(lines, statement):
    """The comment lines right below a statement, without their marks."""
    shown = []
    for line in lines[statement.end_lineno :]:
        if not line.startswith("#"):
            break
        shown.append(line.removeprefix("#").removeprefix(" "))
    return "".join(f"{line}\n" for line in shown)


def run_block(code, path, line, namespace):
    """Run one block; tracebacks and messages give the file and the line in it."""
    lines = code.splitlines()
    for statement in ast.parse("\n" * (line - 1) + code, str(path)).body:
        module = ast.Module([statement], [])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(module, str(path), "exec"), namespace)
        expected = expected_output([""] * (line - 1) + lines, statement)
        if printed.getvalue() and expected and not matches(expected, printed.getvalue()):
            pytest.fail(f"{path}, line {statement.lineno}\nexpected\n{expected}printed\n{printed.getvalue()}", False)


def matches(expected, printed):
    return doctest.OutputChecker().check_output(expected, printed, FLAGS)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_python(path):
    namespace = {"__name__": path.stem}
    for line, code in blocks(path.read_text(encoding="utf-8"), "python"):
        run_block(code, path, line, namespace)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands(path):
    for line, code in blocks(path.read_text(encoding="utf-8"), "console test"):
        for command in filter(re.compile(r"(\$ )?juanji ").match, code.splitlines()):
            words = shlex.split(command.removeprefix("$ "), comments=True)
            result = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, encoding="utf-8")
            assert result.returncode == 0, f"{path}, block at line {line}: {command}\n{result.stdout}{result.stderr}"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print(1)\n# 2\n", r"x\.md, line 7\nexpected\n2\nprinted\n1"),
        ("x = 1\n\nprint(x)\nprint(3)\n# 1\n", r"x\.md, line 10\n"),
    ],
)
def test_a_wrong_example_is_found(code, message):
    with pytest.raises(pytest.fail.Exception, match=message):
        run_block(code, Path("x.md"), 7, {})
    with pytest.raises(ZeroDivisionError) as error:
        run_block("x = 2\n1 / 0\n", Path("x.md"), 7, {})
    last = traceback.extract_tb(error.tb)[-1]
    assert (last.filename, last.lineno) == ("x.md", 8)


def test_output_may_be_abridged():
    run_block("print('a  b c')\n# a b ...\nx = 1  # no output\n# a remark\n", Path("x.md"), 1, {})
