"""What a run, a study or a model says when a plugin that it was made with is gone: the line that installs it."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from tiny_runs import write_plugin

from automl_pt.api.search import run_search
from automl_pt.config import SearchConfig, make
from automl_pt.core.errors import CheckpointError, InvalidModelDirectoryError, StudyError
from automl_pt.model.load import load_model
from automl_pt.plugins.manager import load_plugins
from automl_pt.plugins.provenance import how_to_get, told, used_plugins
from automl_pt.runs import run
from automl_pt.runs.reproduce import Reproduction

MODULE = """
from torch import nn
from automl_pt import Backbone, hookimpl

@hookimpl
def register_backbones():
    layers = lambda classes, pretrained: nn.Sequential(nn.Flatten(), nn.Linear(192, classes))
    return [Backbone("acme/flat", layers, image_size=8)]
"""
SETTINGS = {"epochs": 1, "threads": 1, "device": "cpu"}
SEARCH = {"report": False, "workers": 0, "batch_sizes": [8]}


class Site:
    """A folder on sys.path with one installed distribution."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, version: str) -> None:
        self.remove()
        info = self.folder / f"acme_nets-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-nets\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[automl_pt]\nacme = acme_flat_nets\n")
        (self.folder / "acme_flat_nets.py").write_text(MODULE)
        importlib.invalidate_caches()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        sys.modules.pop("acme_flat_nets", None)
        importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    found = Site(tmp_path / "site")
    found.install("1.2")
    monkeypatch.syspath_prepend(found.folder)
    return found


def test_a_study_names_its_plugins_and_needs_them(site: Site, tiny_folder: Path, tmp_path: Path):
    settings = {"dataset": str(tiny_folder), "backbones": ["acme/flat"], **SEARCH, **SETTINGS}
    first = run_search(make(SearchConfig, {**settings, "trials": 1}), tmp_path / "study")
    [used] = json.loads((tmp_path / "study" / "study.json").read_text())["plugins"]
    assert (used["name"], used["version"], used["origin"]) == ("acme", "1.2", "acme-nets")

    site.remove()
    with pytest.raises(StudyError) as caught:
        run_search(make(SearchConfig, {**settings, "trials": 2}), tmp_path / "study")
    assert caught.value.rule == "a plugin of this study is not loaded"
    assert caught.value.given.endswith("without acme (acme-nets 1.2)")
    assert "`pip install acme-nets==1.2`" in caught.value.remedy

    with pytest.raises(
        InvalidModelDirectoryError, match=r"(?s)acme/flat' is not registered.*pip install acme-nets==1\.2"
    ):
        load_model(first.model)

    site.install("1.3")
    second = run_search(make(SearchConfig, {**settings, "trials": 2}), tmp_path / "study")
    assert len(second.trials) == 2
    assert any(note.startswith("the plugin acme was version 1.2 and is 1.3: trials before") for note in second.notes)


def test_a_plugin_file_that_changed_is_told_by_its_content(tiny_folder: Path, tmp_path: Path):
    path = write_plugin(tmp_path)
    settings = {"dataset": str(tiny_folder), "backbones": ["tiny"], "plugins": [str(path)], **SEARCH, **SETTINGS}
    run_search(make(SearchConfig, {**settings, "trials": 1}), tmp_path / "study")
    same = run_search(make(SearchConfig, {**settings, "trials": 1}), tmp_path / "study")
    assert not any("was version" in note for note in same.notes)
    path.write_text(path.read_text().replace("nn.Conv2d(3, 4, 3), nn.B", "nn.Conv2d(3, 4, 3, bias=False), nn.B"))
    other = run_search(make(SearchConfig, {**settings, "trials": 2}), tmp_path / "study")
    # the older of the two best trials no longer fits its network: that costs the comparison, not the search
    assert any(note.startswith("the plugin tiny_plugin was version sha256 ") for note in other.notes)
    assert len(other.trials) == 2
    assert other.model is not None


def test_a_run_needs_its_plugins(site: Site, tiny_folder: Path, tmp_path: Path):
    settings = {"backbone": "acme/flat", "batch_size": 8, **SETTINGS}
    list(run.train(str(tiny_folder), output=tmp_path / "run", **settings))
    site.remove()
    again = (
        lambda: list(run.train(str(tiny_folder), output=tmp_path / "run", **settings)),
        lambda: Reproduction(tmp_path / "run"),
    )
    for call in again:
        with pytest.raises(CheckpointError) as caught:
            call()
        assert caught.value.rule == "a plugin of this run is not loaded"
        assert "without acme (acme-nets 1.2)" in caught.value.given
        assert "`pip install acme-nets==1.2`" in caught.value.remedy


def test_only_what_is_used_is_recorded(site: Site):
    plugins = load_plugins()
    assert used_plugins(plugins, [("backbone", "resnet18"), ("dataset", "digits")]) == []
    named = [("backbone", "acme/flat"), ("backbone", "resnet18"), ("dataset", "/some/folder")]
    assert [plugin["name"] for plugin in used_plugins(plugins, named)] == ["acme"]


@pytest.mark.parametrize(
    ("plugin", "line"),
    [
        ({"name": "a", "origin": "acme-nets", "version": "1.2"}, "`pip install acme-nets==1.2`"),
        (
            {"name": "a", "origin": "automl-pt-lite", "version": "0.1.0"},
            "`pip install ./plugins/automl-pt-lite` in the checkout of automl-pt",
        ),
        ({"name": "a", "origin": "acme-nets", "version": ""}, "`pip install acme-nets`"),
        (
            {"name": "a", "origin": "/home/me/a.py", "version": ""},
            "name the file at its present path: `--plugin /home/me/a.py`",
        ),
        # a stranger's model directory may name anything
        ({"name": "a", "origin": "a; curl x|sh #", "version": "1"}, "`pip install 'a; curl x|sh #==1'`"),
        (
            {"name": "a", "origin": "/my nets/a.py", "version": ""},
            "name the file at its present path: `--plugin '/my nets",
        ),
        ({"name": "a", "origin": "registered by hand", "version": ""}, "register the plugin by hand"),
    ],
)
def test_what_to_type(plugin, line):
    assert how_to_get([plugin]).startswith(line)
    assert told([plugin]).startswith("a (")
