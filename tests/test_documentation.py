"""What exists is documented, and what is documented runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from automl_pt.cli import COMMANDS
from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core import errors
from automl_pt.core.errors import AutomlError
from automl_pt.plugins import hookspecs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
REFERENCE = DOCS["reference.md"]


def test_the_reference_is_what_the_code_says() -> None:
    # mended by: python docs/make_reference.py
    run_in(ROOT, sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check")


@pytest.mark.parametrize("name", sorted({*TrainConfig.model_fields, *SearchConfig.model_fields}))
def test_every_setting_is_documented(name: str) -> None:
    assert f"| `{name}` |" in REFERENCE


def test_every_command_hook_and_error_is_documented() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    kinds = [name for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, AutomlError)]
    assert len(COMMANDS) > 8
    assert len(hooks) >= 2
    assert len(kinds) > 10
    assert [name for name in COMMANDS if f"### `automl-pt {name}`" not in REFERENCE] == []
    assert [name for name in hooks if f"### `{name}(" not in REFERENCE] == []
    assert [name for name in kinds if name not in REFERENCE] == []


def test_start_has_two_commands_and_ci_runs_the_second() -> None:
    section = re.search(r"^## Start\s*$(.*?)(?=^## )", README, re.S | re.M)
    assert section is not None
    assert len(re.findall(r"^```sh\n(.*?)^```", section.group(1), re.S | re.M)) == 2
    assert "test-command" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", ["README.md", *DOCS])
def test_links_to_files_lead_somewhere(name: str) -> None:
    folder = ROOT if name == "README.md" else ROOT / "docs"
    text = README if name == "README.md" else DOCS[name]
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (folder / link).exists()] == []


def test_commands_named_in_the_documents_exist() -> None:
    named = set(re.findall(r"(?:`|\$ )automl-pt ([a-z]+)\b", "\n".join([README, *DOCS.values()])))
    assert len(named) > 5
    assert named - set(COMMANDS) == set()


EXAMPLES = dict(re.findall(r"<!-- run: (\w+) -->\n```python\n(.*?)^```", README, re.S | re.M))


def run_in(folder: Path, *command: str) -> str:
    """Run a command as a reader of the README would, in an empty folder, and return what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_has_its_three_examples() -> None:
    assert set(EXAMPLES) == {"python", "search", "plugin"}


def test_the_training_example_runs(tmp_path: Path) -> None:
    lines = run_in(tmp_path, sys.executable, "-c", EXAMPLES["python"]).splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["1", "2"]
    assert lines[2] == str(tuple("0123456789"))


def test_the_search_example_runs(tmp_path: Path) -> None:
    shown = run_in(tmp_path, sys.executable, "-c", EXAMPLES["search"])
    assert "TrialRecord(number=" in shown
    assert (tmp_path / "studies" / "readme" / "model" / "model.json").exists()


def test_the_plugin_example_runs_and_has_ten_lines(tmp_path: Path) -> None:
    lines = [line for line in EXAMPLES["plugin"].splitlines() if line]
    assert len(lines) <= 10
    (tmp_path / "tiny.py").write_text(EXAMPLES["plugin"])
    command = [sys.executable, "-m", "automl_pt", "train", "digits", "--plugin", "tiny.py", "--backbone", "acme/tiny"]
    assert "ended: completed" in run_in(tmp_path, *command, "--epochs", "1", "--output", "run")
