"""What exists is documented, what is documented runs, and the site builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from automl_pt.cli import COMMANDS
from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.core import errors
from automl_pt.core.errors import AutomlError
from automl_pt.plugins import hookspecs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*sorted(ROOT.glob("*.md")), ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]
}
#: a page outside these may have at most so many words
LONG, MOST_WORDS = ("docs/reference/", "docs/evidence/"), 1500


@pytest.mark.parametrize(
    "script", ["make_reference.py", "make_hooks.py", "make_rungs.py", "make_floor_plan.py", "make_signatures.py"]
)
def test_what_is_generated_is_what_the_code_says(script: str) -> None:
    # mended by: python docs/SCRIPT
    run_in(ROOT, sys.executable, str(DOCS / script), "--check")


@pytest.mark.parametrize("name", sorted({*TrainConfig.model_fields, *SearchConfig.model_fields}))
def test_every_setting_is_documented(name: str) -> None:
    assert f"| `{name}` |" in PAGES["docs/reference/settings.md"]


def test_every_command_hook_and_error_is_documented() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    kinds = [name for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, AutomlError)]
    assert len(COMMANDS) > 8
    assert len(hooks) >= 2
    assert len(kinds) > 10
    assert [name for name in COMMANDS if f"### `automl-pt {name}`" not in PAGES["docs/reference/commands.md"]] == []
    assert [name for name in hooks if f"## `{name}(" not in PAGES["docs/reference/hooks.md"]] == []
    assert [name for name in kinds if name not in PAGES["docs/reference/errors.md"]] == []


def test_start_has_two_commands_and_ci_runs_the_second() -> None:
    section = re.search(r"^## Start\s*$(.*?)(?=^## )", README, re.S | re.M)
    assert section is not None
    assert len(re.findall(r"^```sh\n(.*?)^```", section.group(1), re.S | re.M)) == 2
    assert "test-command" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/") and not page.startswith(LONG)])
def test_pages_to_be_read_from_top_to_bottom_are_short(page: str) -> None:
    assert len(PAGES[page].split()) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    # anchors are checked by the build of the site
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page]) if "://" not in link]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_repository_that_are_named_exist(page: str) -> None:
    """A document that moved may be named in the changelog."""
    named = re.findall(r"`((?:automl_pt|benchmarks|plugins|tests)/[\w./-]+)", PAGES[page])
    assert [name for name in named if not (ROOT / name.rstrip(".")).exists()] == []


def test_every_benchmark_has_its_line() -> None:
    scripts = [str(path.relative_to(ROOT / "benchmarks")) for path in (ROOT / "benchmarks").rglob("*.py")]
    assert len(scripts) > 20
    assert [script for script in scripts if f"`{script}`" not in PAGES["benchmarks/README.md"]] == []


def test_commands_named_in_the_documents_exist() -> None:
    named = set(re.findall(r"(?:`|\$ )automl-pt ([a-z]+)\b", "\n".join(PAGES.values())))
    assert len(named) > 5
    assert named - set(COMMANDS) == set()


def test_the_site_builds_without_warnings_and_loads_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="((?:https?:)?//[^"]*)"', path.read_text())
        assert loaded == [], path.name


def test_every_page_is_in_the_sites_navigation() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        items = entry.values() if isinstance(entry, dict) else entry
        return [page for item in items for page in pages(item)]  # type: ignore[attr-defined] # a list

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages(nav)) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_hooks_before_a_commit_fetch_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {entry["repo"] for entry in config["repos"]} == {"local"}
    assert {hook["language"] for entry in config["repos"] for hook in entry["hooks"]} == {"system"}


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
