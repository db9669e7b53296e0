"""The page of hooks: complete, up to date, and every example on it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from automl_pt.api.search import run_search
from automl_pt.config import SearchConfig, make
from automl_pt.plugins import hookspecs
from automl_pt.plugins.implementations import HOOKS
from automl_pt.plugins.manager import load_plugins
from automl_pt.testing.names import check_name

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "reference"
PAGE = (REFERENCE / "hooks.md").read_text()
NAMES = (*hookspecs.REGISTERING, *hookspecs.TRACKING)


def test_the_page_is_what_the_code_says():
    # mended by: python docs/make_hooks.py
    subprocess.run([sys.executable, str(DOCS / "make_hooks.py"), "--check"], check=True)


def test_every_hook_has_a_section_and_an_example():
    assert set(NAMES) == set(HOOKS)
    assert len(NAMES) >= 7
    assert [name for name in NAMES if f"## `{name}(" not in PAGE] == []
    assert sorted(path.stem for path in (REFERENCE / "hooks").glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", hookspecs.REGISTERING)
def test_what_examples_register_keeps_the_contract(name):
    assert len(list(check_name(name, load_plugins([str(REFERENCE / "hooks" / f"{name}.py")])))) == 1


def test_the_examples_run_together(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    settings = {"plugins": [str(REFERENCE / "hooks" / f"{name}.py") for name in NAMES], "trackers": hookspecs.TRACKING}
    settings |= {"dataset": "acme/sides", "backbones": ["acme/flat"], "epochs": 1, "workers": 0, "threads": 1}
    result = run_search(
        make(SearchConfig, {**settings, "trials": 1, "batch_sizes": [8], "report": False}), tmp_path / "s"
    )
    assert set(result.best.params) == {"lr", "batch_size", "dropout"}
    told = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [*hookspecs.TRACKING]
