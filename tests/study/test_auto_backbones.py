"""`--backbone auto`: which backbones it stands for, and how the probes choose among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import write_folder

from automl_pt.api.search import steps
from automl_pt.config import SearchConfig, make
from automl_pt.core.errors import ConfigError, WeightsError
from automl_pt.core.files import write_json
from automl_pt.plugins.manager import Plugins, load_plugins
from automl_pt.study import events
from automl_pt.study.auto_backbones import MOST, with_backbones

PLUGIN = """
from functools import partial
from pathlib import Path
from torch import nn
from automl_pt import Backbone, PublishedWeights, hookimpl

HERE = Path(__file__).parent

def build(width, num_classes, pretrained):
    stem = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*stem, nn.Linear(4 * width, num_classes))

def cached(name):
    return HERE / name if (HERE / name).exists() else None

def made(name, width, parameters, file, size=16):
    published = PublishedWeights(partial(cached, file), partial(cached, file)) if file else None
    return Backbone(name, partial(build, width), image_size=size, has_pretrained=True, weights_license="MIT",
                    published=published, parameters=parameters)

@hookimpl
def register_backbones():
    return [made("wide", 8, 2000, "wide.bin"), made("small", 2, 100, "small.bin"), made("wider", 8, 2000, "wide.bin"),
            made("absent", 4, 500, "absent.bin"), made("huge", 4, 10**9, "huge.bin"), made("own", 4, 500, None),
            made("large", 4, 500, "large.bin", 224)]
"""
LIMITS: dict[str, Any] = {"image_size": 16, "max_params": 5000}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    monkeypatch.setenv("AUTOML_PT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "networks.py"
    path.write_text(PLUGIN)
    for name in ("wide", "small", "huge", "large"):
        (tmp_path / f"{name}.bin").touch()
    return load_plugins((str(path),))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", {"train": 8, "val": 4})


def config(photos: Path, plugins: Plugins, **settings: Any) -> SearchConfig:
    shared: dict[str, Any] = {"dataset": str(photos), "plugins": plugins.files, "backbones": ("auto",)}
    return SearchConfig(**{**shared, **LIMITS, **settings})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("small", "wide")),
        ({"max_params": 1000}, ("small",)),
        ({"backbones": ("own", "auto", "small")}, ("own", "small", "wide")),
    ],
)
def test_auto_stands_for_backbones_whose_weights_are_here(
    photos: Path, plugins: Plugins, tmp_path: Path, settings: dict[str, Any], expected: tuple[str, ...]
) -> None:
    found, said = with_backbones(config(photos, plugins, **settings), tmp_path / "study", plugins)
    assert found.backbones == expected
    assert said.startswith(f"--backbone auto: {', '.join(expected)}, because")


def test_auto_takes_the_largest_of_many(photos: Path, tmp_path: Path) -> None:
    path, names = tmp_path / "many.py", [f"net{number}" for number in range(MOST + 2)]
    made = ", ".join(f'made("{name}", 2, {100 + number}, "{name}.bin")' for number, name in enumerate(names))
    path.write_text(PLUGIN.partition("@hookimpl")[0] + f"@hookimpl\ndef register_backbones():\n    return [{made}]\n")
    for name in names:
        (tmp_path / f"{name}.bin").touch()
    plugins = load_plugins((str(path),))
    found, _ = with_backbones(config(photos, plugins), tmp_path / "study", plugins)
    assert found.backbones == tuple(names[2:])


def test_a_study_keeps_the_backbones_that_auto_stood_for(photos: Path, plugins: Plugins, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    write_json(tmp_path / "study" / "study.json", {"asked": {"backbones": ["wide"]}})
    found, said = with_backbones(config(photos, plugins), tmp_path / "study", plugins)
    assert found.backbones == ("wide",)
    assert said is not None
    assert "as the study was started" in said


def test_auto_needs_weights_that_are_here(photos: Path, plugins: Plugins, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="(?s)no pretrained weights.*at most 50 parameters.*automl-pt fetch"):
        list(steps(config(photos, plugins, max_params=50), tmp_path / "study"))
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("given", [{"pretrained": False}, {"weights": "file"}, {"probe": False}])
def test_auto_compares_pretrained_backbones_by_their_probes(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="auto compares pretrained backbones"):
        make(SearchConfig, {"dataset": "digits", "backbones": ("auto",), **given})


def test_auto_is_refused_for_a_dataset_that_asks_for_random_weights(plugins: Plugins, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digits asks for random weights"):
        with_backbones(config(Path("digits"), plugins), tmp_path / "study", plugins)


def test_the_probes_choose_what_auto_fine_tunes(photos: Path, plugins: Plugins, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"epochs": 1, "trials": 1, "batch_sizes": (8,), "threads": 1, "workers": 0}
    told = list(steps(config(photos, plugins, report=False, **shared), tmp_path / "study"))
    notices = [event.text for event in told if isinstance(event, events.Notice)]
    assert notices[0] == "--backbone auto: small, wide, because their weights are on this machine"
    assert any(text.startswith("backbones by their probes' loss: ") for text in notices)
    result = told[-1]
    assert isinstance(result, events.Finished)
    assert {probe.backbone for probe in result.result.probes} == {"small", "wide"}
