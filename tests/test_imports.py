"""What a command may import, seen from a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "optuna", "torchvision", "timm", "sklearn", "pandas", "matplotlib", "sqlalchemy")


def imported_by(code: str) -> set[str]:
    """Run `code` in a new interpreter and return which of the heavy packages it imported."""
    script = f"{code}\nimport sys; print('|' + ' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("|")[2].split())


def command(*arguments: str) -> str:
    lines = (
        "from automl_pt.cli import main",
        "try:",
        f"    main({list(arguments)!r})",
        "except SystemExit as end:",
        "    assert not end.code, end.code",
    )
    return "\n".join(lines)


def test_import_automl_pt_imports_nothing_heavy() -> None:
    assert imported_by("import automl_pt") == set()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["search", "--help"], ["plugins"]]
)
def test_looking_around_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported_by(command(*arguments)) == set()


def test_the_check_above_can_fail() -> None:
    assert imported_by("import torch") == {"torch"}


def test_the_public_names_are_those_listed() -> None:
    code = (
        "import automl_pt\n"
        "assert all(hasattr(automl_pt, name) for name in automl_pt.__all__)\n"
        "from automl_pt import train, search, load_model; assert callable(search)"
    )
    assert "torch" in imported_by(code)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import automl_pt

    with pytest.raises(AttributeError, match="no attribute 'wibble'"):
        _ = automl_pt.wibble
