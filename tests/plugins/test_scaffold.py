"""`automl-pt plugins new`: what it writes is the example with other names, and works as written."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fresh_environment import make_environment, own_tests

from automl_pt.cli.plugins import command
from automl_pt.core.errors import OutputError, UsageError
from automl_pt.plugins.manager import load_plugins
from automl_pt.plugins.scaffold import ALL, BOTH, new_plugin, template
from automl_pt.testing.names import check_name

KINDS = [ALL, BOTH, *(frozenset({kind}) for kind in sorted(ALL))]


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: "-".join(sorted(kinds)))
def test_what_is_written_keeps_the_contract(kinds, tmp_path):
    written = new_plugin("acme-nets", tmp_path, kinds)
    assert sorted(str(path.relative_to(tmp_path / "acme-nets")) for path in written) == [
        "README.md",
        "acme_nets.py",
        "pyproject.toml",
        "tests/test_contract.py",
    ]
    plugins = load_plugins([str(tmp_path / "acme-nets" / "acme_nets.py")])
    passed = {
        "backbone": "backbone acme-nets/tiny",
        "dataset": "dataset acme-nets/stripes",
        "tracker": "tracker acme_nets",
    }
    assert list(check_name("acme_nets", plugins)) == [passed[kind] for kind in sorted(kinds)]


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: "-".join(sorted(kinds)))
def test_nothing_of_the_example_is_left(kinds, tmp_path):
    for path in new_plugin("acme-nets", tmp_path, kinds):
        text = path.read_text()
        assert "example" not in text
        assert "copy this folder" not in text
        others = {"backbone": "tiny", "dataset": "stripes", "tracker": "tracker"}
        assert not [word for kind, word in others.items() if kind not in kinds and word in text], path
    lint = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,I", "--line-length", "120", tmp_path]
    done = subprocess.run(lint, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    with open(tmp_path / "acme-nets" / "pyproject.toml", "rb") as stream:
        project = tomllib.load(stream)["project"]
    assert (project["name"], project["entry-points"]["automl_pt"]) == ("acme-nets", {"acme-nets": "acme_nets"})


def test_all_kinds_are_the_example_itself():
    module = (template() / "automl_pt_example.py").read_text()
    from automl_pt.plugins.scaffold import chosen

    assert chosen(module, ".py", ALL) == module


def test_a_new_tracker_installs_and_its_tests_pass_as_written(tmp_path):
    new_plugin("acme-log", tmp_path, frozenset({"tracker"}))
    python = make_environment(tmp_path / "environment", tmp_path / "acme-log")
    assert "1 passed" in own_tests(python, tmp_path / "acme-log", tmp_path)


def test_the_command_says_what_it_wrote_and_what_is_next(runner, tmp_path):
    result = runner.invoke(command, ["new", "acme-nets", "--backbone", "--folder", str(tmp_path)])
    assert (
        result.output.splitlines()[-1]
        == f"next: pip install {tmp_path / 'acme-nets'}, then automl-pt plugins check acme-nets"
    )
    assert f"wrote {tmp_path / 'acme-nets' / 'acme_nets.py'}" in result.output


@pytest.mark.parametrize("name", ["Acme", "acme_nets", "../acme", "1acme", "acme--nets", "acme-", ""])
def test_a_name_that_no_distribution_can_have(name, tmp_path):
    with pytest.raises(UsageError, match=r"(?s)not a distribution's name.*such as acme-nets"):
        new_plugin(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["json", "class", "numpy", "torch", "automl-pt"])
def test_a_name_that_stands_in_the_way_of_another_module(name, tmp_path):
    with pytest.raises(UsageError, match=r"(?s)would hide another module.*such as acme-nets"):
        new_plugin(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there(tmp_path):
    (tmp_path / "acme-nets").mkdir()
    with pytest.raises(OutputError, match=r"(?s)folder(.|\n)*acme-nets.*another name"):
        new_plugin("acme-nets", Path(tmp_path))
