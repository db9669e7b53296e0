"""Lint, types and layers hold; nothing that runs code from a file is called anywhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "automl_pt").rglob("*.py"))

#: calls that can run code from a file or a string, or go through a shell
DANGEROUS = ("eval", "exec", "pickle.load", "pickle.loads", "joblib.load", "os.system", "yaml.load")


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint() -> None:
    run("ruff", "check", ".")


def test_format() -> None:
    run("ruff", "format", "--check", "automl_pt", "tests", "benchmarks", "plugins", "docs")


def test_types() -> None:
    run("mypy", "automl_pt", "tests/interactive/typed_calls.py")


def test_layers() -> None:
    # in a process of its own: it configures logging anew, and takes our log away from the tests that come after
    code = (
        "import sys; from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_is_run_from_files(path: Path) -> None:
    for call in calls(path):
        name, keywords = ast.unparse(call.func), {keyword.arg for keyword in call.keywords}
        assert name not in DANGEROUS, f"{path}:{call.lineno}"
        assert "shell" not in keywords, f"{path}:{call.lineno}"
        if name == "torch.load":
            assert "weights_only" in keywords, f"{path}:{call.lineno}"


def _commented(lines: list[str], number: int) -> bool:
    return lines[number - 1].strip().startswith("#")


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_silences_a_check_says_why(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        silenced = re.search(r"#\s*(type: ignore|noqa)\S*(?P<rest>.*)$", line)
        if silenced:
            reason = "# " in silenced["rest"] or _commented(lines, number)
            assert reason, f"{path}:{number + 1} silences a check without a reason: beside it, or in the line above"


def test_functions_fit_on_a_screen() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{node.name}": _lines(node)
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(lengths) > 500
    assert {name: lines for name, lines in lengths.items() if lines > 40} == {}


def _lines(node: ast.FunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
