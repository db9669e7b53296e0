"""What a command may import, seen from a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_folder
from tiny_runs import write_plugin

HEAVY = (
    *("torch", "optuna", "torchvision", "timm", "sklearn", "scipy", "pandas", "matplotlib", "jinja2", "sqlalchemy"),
    *("click", "rich"),
)
#: what the command line itself is made of
DISPLAY = {"click", "rich"}


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


def test_looking_around_imports_nothing_heavy() -> None:
    every = [["--help"], ["--version"], ["train", "--help"], ["search", "--help"], ["plugins"]]
    assert imported_by("\n".join(command(*arguments) for arguments in every)) <= DISPLAY


def test_a_run_imports_only_what_it_computes_with(tmp_path: Path) -> None:
    folder, plugin = write_folder(tmp_path / "images", {"train": 6}) / "train", write_plugin(tmp_path)
    words = ["train", folder, "--plugin", plugin, "--output", tmp_path / "run", "--backbone", "tiny"]
    settings = ["--epochs", "1", "--batch-size", "4", "--quiet"]
    assert imported_by(command(*map(str, words), *settings)) - DISPLAY == {"torch"}


def test_a_second_check_imports_nothing_that_decodes_or_compares(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"train": 3}) / "train"
    for path in folder.rglob("*.png"):
        os.utime(path, ns=(10**18, 10**18))  # what is new may change unnoticed, and is looked at again
    code = command("check", str(folder))
    show = "\nprint('|' + ' '.join(name for name in ('numpy', 'PIL.Image', 'imagehash') if name in sys.modules))"
    for wanted in ("numpy PIL.Image imagehash", ""):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\n{code}{show}"], capture_output=True, text=True, check=True
        )
        assert done.stdout.rpartition("|")[2].strip() == wanted


def test_a_worker_imports_only_what_its_trial_computes_with(tmp_path: Path) -> None:
    settings = {"dataset": "digits", "backbone": "tiny", "plugins": [str(write_plugin(tmp_path))], "epochs": 1}
    code = f"""
from pathlib import Path
from automl_pt.config import TrainConfig
from automl_pt.study.executor.worker import TrialSpec, load

make = load("automl_pt.study.executor.trial_run:make_trial")
folder = Path({str(tmp_path)!r})
spec = TrialSpec(0, TrainConfig(**{settings!r}), folder / "run", 1, folder / "manifest.json", ranked_at=(1,))
assert [result.epoch for result in make(spec, lambda: False)] == [1]
"""
    assert imported_by(code) == {"torch"}


def test_the_public_names_are_those_listed_and_the_checks_above_can_fail() -> None:
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
